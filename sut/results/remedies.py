"""What would pass, and when a limit was crossed: said of the rules that a run does not meet."""

from __future__ import annotations

import math

import msgspec

from sut.results import crossing, measures, rules, sustained
from sut.results.crossing import Crossing
from sut.results.early_stopping import num_over_limit, queries_needed
from sut.results.mllog import DetailLog
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.results.sustained import QpsEstimate
from sut.units import number, quantity
from sut.values import Struct

MANY = 10_000_000  # queries: more than any run has
KEPT_UP = 0.95  # of the load offered

# What LoadGen's errors say, and what ends them.
_ERRORS = (
    (
        "Max query count reached",
        "Leave max_query_count out of user.conf: LoadGen logs this when it ends a run.",
    ),
    (
        "Multiple conf files",
        "Give LoadGen one user.conf, and no mlperf.conf beside its own.",
    ),
    (
        "greater than 1",
        "Report every token: an answer of one token has no time per output token.",
    ),
    (
        "differ by more than 1",
        "The clock was set while the test ran: run it again once the clock is steady.",
    ),
)


class Facts(Struct, frozen=True, kw_only=True):
    """What a verdict is drawn from. ``samples`` are all of the test's, or None."""

    log: DetailLog
    samples: SampleLog | None = None

    @property
    def limits_ms(self) -> tuple[float, float] | None:
        """Those on TTFT and TPOT; None where there are none."""
        if self.log.scenario != "Server" or not self.log.token_latencies:
            return None
        ttft, tpot = (
            self.log.count(f"requested_server_{name}_latency") / 1e6 for name in ("ttft", "tpot")
        )
        return ttft, tpot

    @property
    def percentile(self) -> float:
        return rules.percentile_of(self.log)


def explain(check: Check, facts: Facts, estimate: QpsEstimate | None) -> Check:
    """The check with its remedy and its crossing, where it is not met and they are known."""
    if check.met or check.remedy is not None:
        return check
    crossed = _crossing(check.code, facts)
    text, crossed_s = check.text, check.crossed_s
    if crossed is not None and crossed.first_s is not None:
        text, crossed_s = f"{text} {_when(crossed)}", crossed.first_s
    remedy = _remedy(check, facts, estimate)
    return msgspec.structs.replace(check, text=text, remedy=remedy, crossed_s=crossed_s)


def estimate_qps(facts: Facts) -> QpsEstimate | None:
    """The highest load that would have met the limits; None where there are no limits."""
    if facts.limits_ms is None:
        return None
    if facts.samples is None:
        text = (
            "No load can be estimated from this run: LoadGen's log does not hold its samples one "
            "by one, and there is no samples.csv of them."
        )
        return QpsEstimate(qps=None, text=text)
    ttft_ms, tpot_ms = facts.limits_ms
    return sustained.estimate(
        facts.samples,
        ttft_limit_ms=ttft_ms,
        tpot_limit_ms=tpot_ms,
        percentile=facts.percentile,
    )


def _crossing(code: str, facts: Facts) -> Crossing | None:
    if facts.samples is None or facts.limits_ms is None:
        return None
    ttft_ms, tpot_ms = facts.limits_ms
    asked = rules.asked_for(facts.log) if code == "early_stopping" else None
    match asked[0] if asked else code.partition("_")[0].upper():
        case "TTFT":
            return crossing.of_ttft(facts.samples, ttft_ms, facts.percentile)
        case "TPOT" if code != "tpot_plausible":
            return crossing.of_tpot(facts.samples, tpot_ms, facts.percentile)
    return None


def _when(crossed: Crossing) -> str:
    assert crossed.first_s is not None
    text = f"By the dispatcher's clock the first of {quantity(crossed.num_over, 'samples')} over "
    text += "it was done at "
    text += quantity(crossed.first_s, "s")
    if crossed.lost_s is not None:
        text += f"; by {quantity(crossed.lost_s, 's')} there were too many to pass in a run so long"
    return text + "."


def _remedy(check: Check, facts: Facts, estimate: QpsEstimate | None) -> str | None:
    match check.code:
        case "min_duration":
            return _longer(check, facts.log)
        case "min_queries":
            return _more_queries(check, facts.log)
        case "early_stopping":
            return _surer(check, facts)
        case "loadgen_errors":
            return _without_errors(facts.log)
        case "loadgen_validity":
            return "Read mlperf_log_summary.txt beside the log."
        case "failed_samples":
            return "Read the replicas' logs, mend what they name, and run the test again."
        case "idle_replicas":
            return "Read the idle replica's log; offer more load, or run with fewer replicas."
        case "whole_data_set":
            return "Leave accuracy_sample_count out, so that all of the data set is scored."
        case code if code.startswith("accuracy_"):
            return (
                "Compare the prompt, the generation settings, the data type and the model's files "
                "with the reference's: accuracy does not depend on the load."
            )
        case code if code.startswith(("ttft_", "tpot_", "latency_")):
            return _less_load(facts.log, estimate)
    return None


def _longer(check: Check, log: DetailLog) -> str | None:
    seen = measures.measure(log.values)
    if log.scenario == "Offline":
        rate = seen.samples_per_s
    else:
        span_s, num = seen.duration_s, seen.num_queries
        rate = (num - 1) / span_s if span_s and num else None
    if not rate or check.limit is None or not math.isfinite(rate * check.limit):
        return _cut_short(log)
    needed, least = math.ceil(rate * check.limit), number(check.limit)
    if log.scenario == "Offline":
        return (
            f"At the {number(rate)} samples/s it answered, {least} s take about "
            f"{quantity(needed, 'samples')}: set target_qps to {number(rate)} or more, by which "
            "LoadGen sizes the test, and leave max_query_count and max_duration out."
        )
    more = needed + 1 - (seen.num_queries or 0)
    text = (
        f"At the {number(rate)} queries/s it issued, {least} s take about {number(needed + 1)} "
        f"queries, {number(more)} more."
    )
    if short := _cut_short(log):
        return f"{text} {short}"
    by = "higher target_qps" if log.scenario == "Server" else "shorter target_latency"
    return f"{text} LoadGen sizes the test by min_query_count and a {by}."


def _more_queries(check: Check, log: DetailLog) -> str | None:
    if check.measured is None or check.limit is None or check.measured >= check.limit:
        return _cut_short(log)
    text = f"{number(check.limit - check.measured)} more {check.unit}."
    short = _cut_short(log)
    return f"{text} {short}" if short else text


def _cut_short(log: DetailLog) -> str | None:
    """The setting that ended the test early, if one did."""
    most = log.values.get("effective_max_query_count")
    issued = log.values.get("result_query_count")
    if isinstance(most, int) and isinstance(issued, int) and 0 < most <= issued:
        return f"max_query_count ({number(most)}) ended it: leave that out of user.conf."
    longest_ms = log.values.get("effective_max_duration_ms")
    if isinstance(longest_ms, int) and longest_ms > 0:
        longest = quantity(longest_ms / 1e3, "s")
        return f"max_duration ({longest}) may have ended it: leave that out of user.conf."
    return None


def _surer(check: Check, facts: Facts) -> str | None:
    if check.measured is None or check.limit is None or check.limit <= check.measured:
        return None
    issued, needed = int(check.measured), int(check.limit)
    more = f"{number(needed - issued)} more queries, all within the limits."
    over = num_over_limit(needed, facts.percentile) if facts.log.scenario == "Server" else None
    if not over:
        return more
    share = over / issued
    share = over / issued
    enough = _enough_at(share, issued, facts.percentile)
    if enough is None:
        return (
            f"{more} With as large a share over ({share:.2%}) no number is enough: offer less load."
        )
    return (
        f"{more} With as large a share over ({share:.2%}), about {number(enough)} queries in all "
        "(an estimate)."
    )


def _enough_at(share: float, issued: int, percentile: float) -> int | None:
    """How many queries pass with this share over the limit; None where none do."""
    if share >= 1 - percentile:
        return None
    num = issued
    while num <= MANY:
        needed = queries_needed(math.ceil(share * num), percentile)
        if needed <= num:
            return num
        num = needed
    return None


def _less_load(log: DetailLog, estimate: QpsEstimate | None) -> str:
    seen = measures.measure(log.values)
    offered, done = log.values.get("result_scheduled_samples_per_sec"), seen.samples_per_s
    text = "Offer less load: a lower target_qps."
    if estimate is not None:
        text += f" {estimate.text}"
    if isinstance(offered, int | float) and done is not None and done < KEPT_UP * offered:
        text += (
            f" It was offered {number(offered)} queries/s and completed {number(done)}: more than "
            "that it can't do."
        )
    return text


def _without_errors(log: DetailLog) -> str | None:
    found = [remedy for what, remedy in _ERRORS if any(what in e.message for e in log.errors)]
    if found:
        return " ".join(found)
    return "Mend what the first error names, in the harness, and run the test again."
