"""How to fix each rule that is not met, and when its limit was first crossed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from sut.plan.benchmark import Preset, Scenario
from sut.results import early_stopping, load, measures, rules
from sut.results.budget import Hopeless
from sut.results.load import QpsEstimate
from sut.results.mllog import DetailLog
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.units import number, quantity
from sut.values import Struct

# Parts of LoadGen's errors, and how to fix them.
_ERRORS = {
    "Multiple conf files": "Give LoadGen one user.conf, and no mlperf.conf in addition to its own.",
    "greater than 1": "Report every token: an answer of one token has no time per output token.",
    "differ by more than 1": (
        "The clock was set during the test: run the test again once the clock is steady."
    ),
}


class Facts(Struct, frozen=True, kw_only=True):
    """What a verdict is based on. ``samples`` are all of the test's, or None; ``scenario`` and
    ``preset`` are the plan's, None where the plan is unknown."""

    log: DetailLog
    samples: SampleLog | None = None
    estimate: QpsEstimate | None = None
    scenario: Scenario | None = None
    hopeless: Hopeless | None = None  # found while the test ran
    preset: Preset | None = None


class Crossing(Struct, frozen=True, kw_only=True):
    """When samples exceeded a limit, in seconds from the phase's start by the dispatcher's clock.

    ``first_s``: completion of the first sample over the limit. ``lost_s``: completion of the first
    one more than early stopping allows in a run of this size, or the moment when the run knew that
    it would come: samples that wait can be over a limit before they are complete. None where that
    never happened.
    """

    num_over: int
    first_s: float | None
    lost_s: float | None


def explain(checks: Iterable[Check], facts: Facts) -> list[Check]:
    """The checks; each that is not met with its remedy and with when its limit was crossed, as far
    as these are known. Where two share a crossing, only the first tells it."""
    told: dict[Crossing, str] = {}
    return [_explained(check, facts, told) for check in checks]


def _explained(check: Check, facts: Facts, told: dict[Crossing, str]) -> Check:
    if check.met or check.remedy is not None:
        return check
    crossed = _crossing(check.code, facts)
    text, crossed_s = check.text, check.crossed_s
    if crossed is not None and crossed.first_s is not None:
        code = told.setdefault(crossed, check.code)
        of_another = f"The samples over the limit are those of {code}."
        when = _when(crossed, crossed.first_s) if code == check.code else of_another
        text = f"{text} {when}"
        crossed_s = min(crossed.first_s, crossed.lost_s or math.inf)
    return msgspec.structs.replace(
        check, text=text, remedy=_remedy(check, facts), crossed_s=crossed_s
    )


def by_remedy(reasons: Iterable[Check]) -> dict[str, list[str]]:
    """The codes of the rules that each remedy fixes."""
    codes: dict[str, list[str]] = {}
    for reason in reasons:
        if reason.remedy:
            codes.setdefault(reason.remedy, []).append(reason.code)
    return codes


def crossing(samples: SampleLog, latency: str, limit_ms: float, percentile: float) -> Crossing:
    """When the samples' ``latency``, TTFT or TPOT, exceeded its limit."""
    of_row = samples.ttft_ms if latency == "TTFT" else samples.tpot_ms
    over_s = [
        done_ms / 1e3
        for row, done_ms in enumerate(samples.completed_ms)
        if (latency_ms := of_row(row)) is not None and latency_ms > limit_ms
    ]
    allowed = early_stopping.num_allowed(len(samples), percentile)
    lost = allowed is not None and len(over_s) > allowed
    return Crossing(
        num_over=len(over_s),
        first_s=over_s[0] if over_s else None,
        lost_s=over_s[allowed] if lost and allowed is not None else None,
    )


def _crossing(code: str, facts: Facts) -> Crossing | None:
    limits = rules.token_limits_ns(facts.log)
    asked = rules.asked_for(facts.log) if code == "early_stopping" else None
    latency = asked[0] if asked else code.partition("_")[0].upper()
    if facts.samples is None or latency not in limits or code == "tpot_plausible":
        return None
    percentile = rules.percentile_of(facts.log)
    found = crossing(facts.samples, latency, limits[latency] / 1e6, percentile)
    if facts.hopeless is None or facts.hopeless.limit != latency:
        return found
    return msgspec.structs.replace(found, lost_s=facts.hopeless.since_s)


def _when(crossed: Crossing, first_s: float) -> str:
    over = f"By the dispatcher's clock {quantity(crossed.num_over, 'samples')} exceeded the limit"
    first = f"the first at {quantity(first_s, 's')}"
    if crossed.lost_s is None:
        return f"{over}, {first}."
    at = quantity(crossed.lost_s, "s")
    if crossed.lost_s < first_s:
        return (
            f"{over}. From {at} on, counting samples that still waited, too many were over the "
            f"limit for a run this long; the first one completed at {quantity(first_s, 's')}."
        )
    return f"{over}, {first}; from {at} on there were too many to pass in a run this long."


def _remedy(check: Check, facts: Facts) -> str | None:
    match check.code:
        case "min_duration":
            return _longer(check, facts)
        case "min_queries":
            return _more_queries(check, facts)
        case "early_stopping":
            return _surer(check, facts.log)
        case "loadgen_errors":
            return _without_errors(facts)
        case "error_flags":
            return "Use the file as LoadGen wrote it: its flags and its count agree."
        case "loadgen_validity":
            return "Read mlperf_log_summary.txt next to the log."
        case "failed_samples":
            return "Read the replicas' logs, fix what they report, then run the test again."
        case "idle_replicas":
            return "Read the idle replica's log; offer more load, or use fewer replicas."
        case "whole_data_set":
            return "Remove accuracy_sample_count, so that the whole data set is scored."
        case "accuracy_exact_match" if check.measured is None:
            return "Run its scorer: python -m sut.score RUN --inference DIR --references FILE."
        case code if code.startswith("accuracy_"):
            return (
                "Compare the prompt, the generation settings, the data type and the model's files "
                "with the reference's: accuracy does not depend on the load."
            )
        case code if code.startswith(("ttft_", "tpot_", "latency_")):
            return load.lower(facts.log, facts.samples, facts.estimate, facts.scenario)
    return None


def _longer(check: Check, facts: Facts) -> str | None:
    log = facts.log
    seen = measures.measure(log.values)
    if log.scenario == "Offline":
        rate = seen.samples_per_s
    else:
        span_s, num = seen.duration_s, seen.num_queries
        rate = (num - 1) / span_s if span_s and num else None
    if not rate or check.limit is None or not math.isfinite(rate * check.limit):
        return _ended_by(facts)
    needed, least = math.ceil(rate * check.limit), number(check.limit)
    if log.scenario == "Offline":
        text = (
            f"At the measured {number(rate)} samples/s, {least} s take about "
            f"{quantity(needed, 'samples')}:"
        )
        if facts.preset == Preset.QUICK:
            return f"{text} {_without('max_query_count', facts)}."
        return (
            f"{text} set target_qps, by which LoadGen sizes the test, to {number(rate)} or more, "
            "and remove max_query_count and max_duration."
        )
    more = needed + 1 - (seen.num_queries or 0)
    text = (
        f"At the measured {number(rate)} queries/s, {least} s take about {number(needed + 1)} "
        f"queries, {number(more)} more."
    )
    if ended := _ended_by(facts):
        return f"{text} {ended}"
    by = "higher target_qps" if log.scenario == "Server" else "shorter target_latency"
    return f"{text} LoadGen sizes the test by min_query_count and a {by}."


def _more_queries(check: Check, facts: Facts) -> str | None:
    ended = _ended_by(facts)
    if check.measured is None or check.limit is None or check.measured >= check.limit:
        return ended
    text = f"{number(check.limit - check.measured)} more {check.unit}."
    return f"{text} {ended}" if ended else text


def _ended_by(facts: Facts) -> str | None:
    """The setting that ended the test early, if one did, and how to leave it out."""
    log = facts.log
    most = log.values.get("effective_max_query_count")
    issued = log.values.get("result_query_count")
    if isinstance(most, int) and isinstance(issued, int) and 0 < most <= issued:
        without = _without("max_query_count", facts)
        return f"max_query_count ({number(most)}) ended the test: {without}."
    longest_ms = log.values.get("effective_max_duration_ms")
    if isinstance(longest_ms, int) and longest_ms > 0:
        longest = quantity(longest_ms / 1e3, "s")
        without = _without("max_duration_ms", facts)
        return f"max_duration ({longest}) may have ended the test: {without}."
    return None


def _without(key: str, facts: Facts) -> str:
    """How to leave out a setting of LoadGen: a run's user.conf is written from its plan."""
    if facts.scenario is None:
        return f"remove {key.removesuffix('_ms')} from user.conf"
    if facts.preset == Preset.QUICK:
        return "choose --preset smoke"
    return f"remove scenarios.{facts.scenario}.{key} from the benchmark and from --set"


def _surer(check: Check, log: DetailLog) -> str | None:
    if check.measured is None or check.limit is None or check.limit <= check.measured:
        return None
    issued, needed = int(check.measured), int(check.limit)
    more = f"{number(needed - issued)} more queries, all within the limits."
    percentile = rules.percentile_of(log)
    over = early_stopping.num_over_limit(needed, percentile) if log.scenario == "Server" else None
    if not over:
        return more
    share = over / issued
    enough = early_stopping.enough_at(share, issued, percentile)
    what = "no number is enough: offer less load"
    if enough is not None:
        what = f"about {number(enough)} queries in all (an estimate)"
    return f"{more} With the same share over ({share:.2%}), {what}."


def _without_errors(facts: Facts) -> str:
    messages = [error.message for error in facts.log.errors]
    found = [remedy for what, remedy in _ERRORS.items() if any(what in each for each in messages)]
    if any("Max query count reached" in each for each in messages):
        how = _without("max_query_count", facts)
        found.append(f"LoadGen logs this error when max_query_count ends a test: {how}.")
    if not messages:
        return "Find the errors: num_errors counts them, and the log does not contain them."
    return " ".join(found) or "Fix what the first error names in the harness, then run again."
