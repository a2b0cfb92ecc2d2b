"""The rounds of MLPerf Inference: each one's seeds, and what it asks of every benchmark.

From LoadGen's own ``mlperf.conf`` at each round. Seeds that are none of these are said to be
unknown: a round is never guessed.
"""

from __future__ import annotations

from sut.plan.plan import Plan
from sut.results.mllog import DetailLog
from sut.results.rules import Check, check
from sut.units import number, quantity
from sut.values import Struct

MIN_DURATION_MS = 600_000
_SEED_KEYS = (
    "effective_qsl_rng_seed",
    "effective_sample_index_rng_seed",
    "effective_schedule_rng_seed",
)
_PERCENTILES = {"Server": 0.99, "SingleStream": 0.9, "MultiStream": 0.99}

Seeds = tuple[int, int, int]  # qsl, sample_index, schedule


class Round(Struct, frozen=True, kw_only=True):
    """``since`` is the first version of LoadGen that surely carries the seeds: the one before it
    may, as LoadGen's version is raised after a change."""

    name: str
    seeds: Seeds
    since: tuple[int, int, int]
    llama3_1_8b: bool = True  # whether the benchmark was one of the round


ROUNDS = (
    Round(
        name="v5.0",
        seeds=(6023615788873153749, 15036839855038426416, 9933818062894767841),
        since=(5, 0, 9),
        llama3_1_8b=False,
    ),
    Round(
        name="v5.1",
        seeds=(1780908523862526354, 14771362308971278857, 18209322760996052031),
        since=(5, 0, 22),
    ),
    Round(
        name="v6.0",
        seeds=(2465351861681999779, 14276810075590677512, 3936089224930324775),
        since=(6, 0, 5),
    ),
    Round(
        name="v6.1",
        seeds=(2085463073848966840, 2747215439041700203, 16159082839903944936),
        since=(6, 0, 16),
    ),
)
NAMES = tuple(each.name for each in ROUNDS)
_LAST_KNOWN = (6, 0)  # what later versions of LoadGen carry is not known here

_NO_BENCHMARK = "a LoadGen log does not tell its benchmark"

# The limits on TTFT and TPOT (ms) of Llama-3.1-8B, by LoadGen's model name.
_LIMITS_MS = {"llama3_1-8b": (2000, 100), "llama3_1-8b-interactive": (500, 30)}


def of_seeds(log: DetailLog, asked: str | None) -> tuple[list[Check], list[str]]:
    """The check of the log's seeds, and what is to be said where there is nothing to hold them to.

    ``asked`` is the round they must be of; without it they are held to the round they are of, or
    else to the one this LoadGen carries.
    """
    seeds = _seeds(log)
    if seeds is None:
        return [], ["The log does not tell its seeds, so its round is not known."]
    theirs = next((each for each in ROUNDS if each.seeds == seeds), None)
    wanted = _named(asked) or theirs or _carried(log)
    if wanted is None:
        told = f"The seeds ({_text(seeds)}) are those of no round known here"
        return [], [f"{told} ({NAMES[0]} to {NAMES[-1]}), so the log's round is not known."]
    if theirs == wanted:
        return [check("round_seeds", True, f"The seeds are those of {wanted.name}.")], []
    whose = f"those of {theirs.name}" if theirs else f"of no round known here ({_text(seeds)})"
    text = f"The seeds are {whose}, not those of {wanted.name}."
    return [check("round_seeds", False, text, remedy=_remedy(wanted, log))], []


def of_settings(log: DetailLog, asked: str, plan: Plan | None) -> tuple[list[Check], list[str]]:
    """Whether the log's settings are those of the round, as far as a log tells; and what it can't
    tell. Lowered settings make a run VALID that no round takes."""
    wrong = []
    duration_ms = log.count("effective_min_duration_ms")
    if duration_ms < MIN_DURATION_MS:
        wrong.append(
            f"min_duration is {quantity(duration_ms / 1e3, 's')}, not "
            f"{number(MIN_DURATION_MS / 1e3)} s"
        )
    percentile, least = (
        log.number("effective_target_latency_percentile"),
        _PERCENTILES.get(log.scenario),
    )
    if least is not None and (percentile is None or percentile < least):
        wrong.append(f"the percentile is {number(percentile)}, not {number(least)}")
    limits, notes = _limits(log, asked, plan)
    wrong += limits
    text = f"The settings are those of {asked}, as far as the log tells."
    if wrong:
        text = f"The settings are not those of {asked}: {'; '.join(wrong)}."
    remedy = "Leave them out of user.conf: LoadGen's own are the round's." if wrong else None
    return [check("round_settings", not wrong, text, remedy=remedy)], notes


def _limits(log: DetailLog, asked: str, plan: Plan | None) -> tuple[list[str], list[str]]:
    """What is wrong with the limits on TTFT and TPOT; and what can't be said of them."""
    if log.scenario != "Server" or not log.token_latencies:
        return [], []
    expected = _LIMITS_MS.get(plan.loadgen_name) if plan else None
    if plan is None or expected is None:
        why = f"none are known here for {plan.loadgen_name}" if plan else _NO_BENCHMARK
        return [], [f"Its limits on TTFT and TPOT were not held to the round: {why}."]
    round_ = _named(asked)
    if round_ is not None and not round_.llama3_1_8b:
        return [f"Llama-3.1-8B was no benchmark of {asked}"], []
    keys = (
        ("TTFT", "requested_server_ttft_latency", expected[0]),
        ("TPOT", "requested_server_tpot_latency", expected[1]),
    )
    return [
        f"the {name} limit is {quantity(log.count(key) / 1e6, 'ms')}, not {number(limit)} ms"
        for name, key, limit in keys
        if log.count(key) > limit * 1e6
    ], []


def _seeds(log: DetailLog) -> Seeds | None:
    if any(key not in log.values for key in _SEED_KEYS):
        return None
    qsl, sample_index, schedule = (log.count(key) for key in _SEED_KEYS)
    return qsl, sample_index, schedule


def _named(name: str | None) -> Round | None:
    return next((each for each in ROUNDS if each.name == name), None)


def _carried(log: DetailLog) -> Round | None:
    """The round whose seeds this LoadGen carries; None where that is not known."""
    version = log.version
    if version is None or version[:2] > _LAST_KNOWN:
        return None
    return next((each for each in reversed(ROUNDS) if version >= each.since), None)


def _remedy(wanted: Round, log: DetailLog) -> str:
    # Of the version before a change some builds carry the one round's seeds, some the other's.
    before = {(*each.since[:2], each.since[2] - 1) for each in ROUNDS}
    if _carried(log) == wanted and log.version not in before:
        return f"Leave the seeds out of user.conf: this LoadGen carries those of {wanted.name}."
    least = ".".join(map(str, wanted.since))
    return f"Run it with a LoadGen of {wanted.name} ({least} is the first), or set its three seeds."


def _text(seeds: Seeds) -> str:
    return ", ".join(map(str, seeds))
