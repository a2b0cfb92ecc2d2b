"""The rounds of MLPerf Inference: each one's seeds, and its settings for every benchmark.

From LoadGen's own ``mlperf.conf`` at each round. A round is never guessed: other seeds are
reported as unknown.
"""

from __future__ import annotations

from sut.plan.plan import Plan
from sut.results.mllog import DetailLog
from sut.results.rules import Check, token_limits_ns
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
    """``since`` is the first version of LoadGen sure to contain the seeds. The one before it may,
    because LoadGen's version is raised after a change."""

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
_LAST_KNOWN = (6, 0)  # the seeds of later versions of LoadGen are unknown

_NO_BENCHMARK = "a LoadGen log does not contain its benchmark"

# The limits on TTFT and TPOT (ms) of Llama-3.1-8B, by LoadGen's model name.
_LIMITS_MS = {"llama3_1-8b": (2000, 100), "llama3_1-8b-interactive": (500, 30)}


def of_seeds(log: DetailLog, asked: str | None) -> tuple[list[Check], list[str]]:
    """The check of the log's seeds, or notes where there are none to compare with.

    They must be those of the round ``asked``; without it, of the round they match, otherwise of
    the log's LoadGen version.
    """
    seeds = _seeds(log)
    if seeds is None:
        return [], ["The log contains no seeds, so its round is unknown."]
    theirs = next((each for each in ROUNDS if each.seeds == seeds), None)
    wanted = _named(asked) or theirs or _carried(log)
    if wanted is None:
        note = f"The seeds ({_text(seeds)}) are those of no known round"
        return [], [f"{note} ({NAMES[0]} to {NAMES[-1]}), so the log's round is unknown."]
    if theirs == wanted:
        return [Check("round_seeds", True, f"The seeds are those of {wanted.name}.")], []
    whose = f"those of {theirs.name}" if theirs else f"those of no known round ({_text(seeds)})"
    text = f"The seeds are {whose}, not those of {wanted.name}."
    return [Check("round_seeds", False, text, remedy=_remedy(wanted, log))], []


def of_settings(log: DetailLog, asked: str, plan: Plan | None) -> tuple[list[Check], list[str]]:
    """The check of the log's settings against the round's, and notes on what a log does not
    contain. With easier settings, LoadGen calls a run VALID that no round accepts."""
    wrong = []
    duration_ms = log.count("effective_min_duration_ms")
    if duration_ms < MIN_DURATION_MS:
        wrong.append(
            f"min_duration is {quantity(duration_ms / 1e3, 's')}, not "
            f"{number(MIN_DURATION_MS / 1e3)} s"
        )
    percentile = log.number("effective_target_latency_percentile")
    least = _PERCENTILES.get(log.scenario)
    if least is not None and (percentile is None or percentile < least):
        wrong.append(f"the percentile is {number(percentile)}, not {number(least)}")
    limits, notes = _limits(log, asked, plan)
    wrong += limits
    text = f"The settings are those of {asked}, as far as the log contains them."
    if wrong:
        text = f"The settings are not those of {asked}: {'; '.join(wrong)}."
    remedy = "Remove them from user.conf: LoadGen's own are the round's." if wrong else None
    return [Check("round_settings", not wrong, text, remedy=remedy)], notes


def _limits(log: DetailLog, asked: str, plan: Plan | None) -> tuple[list[str], list[str]]:
    """The limits on TTFT and TPOT that are too high; and notes on what is unknown."""
    limits = token_limits_ns(log)
    if not limits:
        return [], []
    expected = _LIMITS_MS.get(plan.loadgen_name) if plan else None
    if plan is None or expected is None:
        why = f"none are known for {plan.loadgen_name}" if plan else _NO_BENCHMARK
        return [], [f"Limits on TTFT and TPOT were not compared with the round's: {why}."]
    round_ = _named(asked)
    if round_ is not None and not round_.llama3_1_8b:
        return [f"{asked} has no benchmark Llama-3.1-8B"], []
    return [
        f"the {name} limit is {quantity(limit_ns / 1e6, 'ms')}, not {number(most_ms)} ms"
        for (name, limit_ns), most_ms in zip(limits.items(), expected, strict=True)
        if limit_ns > most_ms * 1e6
    ], []


def _seeds(log: DetailLog) -> Seeds | None:
    if any(key not in log.values for key in _SEED_KEYS):
        return None
    qsl, sample_index, schedule = (log.count(key) for key in _SEED_KEYS)
    return qsl, sample_index, schedule


def _named(name: str | None) -> Round | None:
    return next((each for each in ROUNDS if each.name == name), None)


def _carried(log: DetailLog) -> Round | None:
    """The round whose seeds this LoadGen contains; None where unknown."""
    version = log.version
    if version is None or version[:2] > _LAST_KNOWN:
        return None
    return next((each for each in reversed(ROUNDS) if version >= each.since), None)


def _remedy(wanted: Round, log: DetailLog) -> str:
    # Builds of the version before a change contain the seeds of either round.
    before = {(*each.since[:2], each.since[2] - 1) for each in ROUNDS}
    if _carried(log) == wanted and log.version not in before:
        return f"Remove the seeds from user.conf: this LoadGen contains those of {wanted.name}."
    least = ".".join(map(str, wanted.since))
    return f"Use a LoadGen of {wanted.name} ({least} is the first), or set its three seeds."


def _text(seeds: Seeds) -> str:
    return ", ".join(map(str, seeds))
