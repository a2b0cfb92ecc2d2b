"""How to fix each rule that is not met, and when its limit was first crossed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from sut.plan.benchmark import Scenario
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
    "Max query count reached": (
        "Remove max_query_count from user.conf: LoadGen logs this error when it ends a test."
    ),
    "Multiple conf files": "Give LoadGen one user.conf, and no mlperf.conf in addition to its own.",
    "greater than 1": "Report every token: an answer of one token has no time per output token.",
    "differ by more than 1": (
        "The clock was set during the test: run the test again once the clock is steady."
    ),
}


class Facts(Struct, frozen=True, kw_only=True):
    """What a verdict is based on. ``samples`` are all of the test's, or None; ``scenario`` is the
    plan's, None where the plan is unknown."""

    log: DetailLog
    samples: SampleLog | None = None
    estimate: QpsEstimate | None = None
    scenario: Scenario | None = None
    hopeless: Hopeless | None = None  # found while the test ran


class Crossing(Struct, frozen=True, kw_only=True):
    """When samples exceeded a limit, in seconds from the phase's start by the dispatcher's clock.

    ``first_s``: completion of the first sample over the limit. ``lost_s``: completion of the first
    one more than early stopping allows in a run of this size. None where that never happened.
    """

    num_over: int
    first_s: float | None
    lost_s: float | None


def explain(check: Check, facts: Facts) -> Check:
    """The check with its remedy and its crossing, where it is not met and they are known."""
    if check.met or check.remedy is not None:
        return check
    crossed = _crossing(check.code, facts)
    text, crossed_s = check.text, check.crossed_s
    if crossed is not None and crossed.first_s is not None:
        text, crossed_s = f"{text} {_when(crossed, crossed.first_s)}", crossed.first_s
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
    # The run knew it before those samples were complete.
    return msgspec.structs.replace(found, lost_s=facts.hopeless.since_s)


def _when(crossed: Crossing, first_s: float) -> str:
    lost = ""
    if crossed.lost_s is not None:
        at = quantity(crossed.lost_s, "s")
        lost = f"; at {at} there were too many to pass in a run this long"
    return (
        f"By the dispatcher's clock the first of {quantity(crossed.num_over, 'samples')} over the "
        f"limit completed at {quantity(first_s, 's')}{lost}."
    )


def _remedy(check: Check, facts: Facts) -> str | None:
    match check.code:
        case "min_duration":
            return _longer(check, facts.log)
        case "min_queries":
            return _more_queries(check, facts.log)
        case "early_stopping":
            return _surer(check, facts.log)
        case "loadgen_errors":
            return _without_errors(facts.log)
        case "loadgen_validity":
            return "Read mlperf_log_summary.txt next to the log."
        case "failed_samples":
            return "Read the replicas' logs, fix what they report, then run the test again."
        case "idle_replicas":
            return "Read the idle replica's log; offer more load, or use fewer replicas."
        case "whole_data_set":
            return "Remove accuracy_sample_count, so that the whole data set is scored."
        case code if code.startswith("accuracy_"):
            return (
                "Compare the prompt, the generation settings, the data type and the model's files "
                "with the reference's: accuracy does not depend on the load."
            )
        case code if code.startswith(("ttft_", "tpot_", "latency_")):
            return load.lower(facts.log, facts.samples, facts.estimate, facts.scenario)
    return None


def _longer(check: Check, log: DetailLog) -> str | None:
    seen = measures.measure(log.values)
    if log.scenario == "Offline":
        rate = seen.samples_per_s
    else:
        span_s, num = seen.duration_s, seen.num_queries
        rate = (num - 1) / span_s if span_s and num else None
    if not rate or check.limit is None or not math.isfinite(rate * check.limit):
        return _ended_by(log)
    needed, least = math.ceil(rate * check.limit), number(check.limit)
    if log.scenario == "Offline":
        return (
            f"At the measured {number(rate)} samples/s, {least} s take about "
            f"{quantity(needed, 'samples')}: set target_qps, by which LoadGen sizes the test, to "
            f"{number(rate)} or more, and remove max_query_count and max_duration."
        )
    more = needed + 1 - (seen.num_queries or 0)
    text = (
        f"At the measured {number(rate)} queries/s, {least} s take about {number(needed + 1)} "
        f"queries, {number(more)} more."
    )
    if ended := _ended_by(log):
        return f"{text} {ended}"
    by = "higher target_qps" if log.scenario == "Server" else "shorter target_latency"
    return f"{text} LoadGen sizes the test by min_query_count and a {by}."


def _more_queries(check: Check, log: DetailLog) -> str | None:
    ended = _ended_by(log)
    if check.measured is None or check.limit is None or check.measured >= check.limit:
        return ended
    text = f"{number(check.limit - check.measured)} more {check.unit}."
    return f"{text} {ended}" if ended else text


def _ended_by(log: DetailLog) -> str | None:
    """The setting that ended the test early, if one did."""
    most = log.values.get("effective_max_query_count")
    issued = log.values.get("result_query_count")
    if isinstance(most, int) and isinstance(issued, int) and 0 < most <= issued:
        return f"max_query_count ({number(most)}) ended the test: remove it from user.conf."
    longest_ms = log.values.get("effective_max_duration_ms")
    if isinstance(longest_ms, int) and longest_ms > 0:
        longest = quantity(longest_ms / 1e3, "s")
        return f"max_duration ({longest}) may have ended the test: remove it from user.conf."
    return None


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


def _without_errors(log: DetailLog) -> str:
    found = [
        remedy for what, remedy in _ERRORS.items() if any(what in e.message for e in log.errors)
    ]
    return " ".join(found) or "Fix what the first error names in the harness, then run again."
