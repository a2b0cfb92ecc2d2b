"""The load to try next. Every suggestion of a load, in a remedy or a report, comes from here.

``estimate`` finds the highest load that would have met the limits of a Server run. It divides the
run into windows by the time at which queries were issued and takes the quietest ones, the
quietest first, as long as their queries together pass LoadGen's early stopping on both limits. It
looks for a load whose own windows would seldom be busier than the busiest of these: LoadGen's
Server queries are a Poisson process, so their number in a window varies by its square root. The
mean rate of the quiet windows would be too high: at that rate, other windows are busier than any
of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median

from sut.plan.benchmark import Scenario
from sut.results import measures, rules
from sut.results.early_stopping import queries_needed
from sut.results.mllog import DetailLog
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.units import number, quantity
from sut.values import Struct

MIN_WINDOWS = 10
MAX_WINDOWS = 40
SELDOM = NormalDist().inv_cdf(0.99)  # standard deviations, exceeded once in a hundred times
FEW = 50  # samples: too few for any suggestion
ROOM = 0.5  # of a limit
KEPT_UP = 0.95  # of the load offered


class QpsEstimate(Struct, frozen=True, kw_only=True):
    """``qps`` is in queries a second, None where the run gives no evidence for any; ``text`` is
    the evidence, or why there is none."""

    qps: float | None
    text: str


def lower(
    log: DetailLog,
    samples: SampleLog | None,
    estimated: QpsEstimate | None,
    scenario: Scenario | None,
) -> str:
    """How to fix a latency over its limit. ``scenario`` is the plan's; None without a plan."""
    overloaded = overload(samples) if samples else None
    best = estimated if estimated and estimated.qps else overloaded
    done = measures.measure(log.values).samples_per_s
    asked = log.values.get("effective_target_qps")  # of a test that LoadGen gave no result
    offered = log.values.get("result_scheduled_samples_per_sec", asked)
    if not isinstance(offered, int | float):
        offered = math.inf
    setting, evidence = "a lower target_qps", [estimated.text] if estimated else []
    if best and best.qps and best.qps < offered:
        setting = near(best.qps, scenario)
    if best and best is overloaded:
        evidence.append(best.text)
    elif not best and done is None and isinstance(asked, int | float):
        setting = near(asked / 2, scenario)
        evidence.append("This is half of the load of this run.")
    elif done is not None and math.isfinite(offered) and done < KEPT_UP * offered:
        evidence.append(
            f"It was offered {number(offered)} queries/s and completed {number(done)}, its maximum."
        )
    return " ".join([f"Offer less load: {setting}.", *evidence])


def higher(
    scenario: Scenario,
    offered: float | None,
    ttft: Check,
    tpot: Check,
    estimated: QpsEstimate | None,
) -> str | None:
    """What to try where both latencies were far below their limits at the ``offered`` queries/s;
    None where they were not, or where the load is unknown."""
    if not offered or not (has_room(ttft) and has_room(tpot)):
        return None
    tried = 1.2 * offered
    qps = max(tried, estimated.qps or 0.0) if estimated else tried
    return (
        f"TTFT p99 was {share_of_limit(ttft):.0%} of its limit, TPOT p99 "
        f"{share_of_limit(tpot):.0%} of its limit. Try a higher load: "
        f"`{near(qps, scenario)}`."
    )


def overload(samples: SampleLog) -> QpsEstimate | None:
    """A load to try where samples waited longer and longer for a place in a replica; None where
    they did not."""
    if len(samples) < FEW:
        return None
    waits = sorted(
        (issued, admitted - issued)
        for issued, admitted in zip(samples.issued_ms, samples.admitted_ms, strict=True)
    )
    quarter = len(waits) // 4
    first, last = waits[:quarter], waits[-quarter:]
    early_ms, late_ms = (sum(wait for _, wait in part) / quarter for part in (first, last))
    if late_ms < 200 or late_ms < 4 * early_ms:
        return None
    begin, end = waits[quarter][0], samples.completed_ms[-1]
    rate = 1e3 * sum(completed >= begin for completed in samples.completed_ms) / (end - begin)
    text = (
        f"The load exceeded what the replicas can do: samples waited {quantity(early_ms, 'ms')} "
        f"for a place in a replica in the first quarter and {quantity(late_ms, 'ms')} in the last. "
        f"After the first quarter the replicas completed {number(rate)} samples/s."
    )
    return QpsEstimate(qps=0.9 * rate, text=text)


def set_to(qps: float, scenario: Scenario | None) -> str:
    """The setting of a load: an option of ``sut.submit``, or without a plan LoadGen's own."""
    value = f"{qps:.12g}"
    return f"--set scenarios.{scenario}.target_qps={value}" if scenario else f"target_qps {value}"


def near(qps: float, scenario: Scenario | None) -> str:
    """The same of an estimate, which has three digits."""
    return set_to(float(f"{qps:.3g}"), scenario)


def share_of_limit(check: Check) -> float:
    """The measured part of a check's limit; infinite where one is unknown."""
    return check.measured / check.limit if check.measured is not None and check.limit else math.inf


def has_room(check: Check) -> bool:
    return check.met and share_of_limit(check) <= ROOM


def estimate_from(log: DetailLog, samples: SampleLog | None) -> QpsEstimate | None:
    """The estimate for a test; None where it has no limits on tokens. ``samples`` are all of the
    test's, or None."""
    limits = rules.token_limits_ns(log)
    if not limits:
        return None
    if samples is None:
        return _none("LoadGen's log has no individual samples, and there is no samples.csv")
    return estimate(
        samples,
        ttft_limit_ms=limits["TTFT"] / 1e6,
        tpot_limit_ms=limits["TPOT"] / 1e6,
        percentile=rules.percentile_of(log),
    )


def estimate(
    samples: SampleLog, *, ttft_limit_ms: float, tpot_limit_ms: float, percentile: float
) -> QpsEstimate:
    """The highest load that would have met the limits, or why it is unknown."""
    least = queries_needed(0, percentile)
    if len(samples) < least:
        few = f"{quantity(len(samples), 'queries')} are too few"
        return _none(f"{few}; {number(least)} needed for p{100 * percentile:g} at any load")
    begin_ms, end_ms = min(samples.issued_ms), max(samples.issued_ms)
    latency_ms = median(
        done - issued for done, issued in zip(samples.completed_ms, samples.issued_ms, strict=True)
    )
    span_ms = end_ms - begin_ms
    # A window shorter than its answers does not show the load under which they were computed.
    num_windows = min(MAX_WINDOWS, int(span_ms / max(2 * latency_ms, 1e-6)))
    if num_windows < MIN_WINDOWS:
        answers = quantity(latency_ms / 1e3, "s")
        return _none(
            f"queries were issued for {quantity(span_ms / 1e3, 's')}, too short for answers of "
            f"{answers}: lighter and heavier load cannot be distinguished"
        )
    window_s = span_ms / num_windows / 1e3
    windows = _windows(samples, begin_ms, window_s, num_windows, ttft_limit_ms, tpot_limit_ms)
    taken = _quietest_passing(windows, percentile)
    if not taken:
        return _none("even its quietest windows together exceed the limits")
    return _of_windows(taken, num_windows, window_s)


class _Window(Struct, frozen=True):
    queries: int
    ttft_over: int
    tpot_over: int


def _none(why: str) -> QpsEstimate:
    return QpsEstimate(qps=None, text=f"No load can be estimated from this run: {why}.")


def _windows(
    samples: SampleLog,
    begin_ms: float,
    window_s: float,
    num_windows: int,
    ttft_limit_ms: float,
    tpot_limit_ms: float,
) -> list[_Window]:
    queries, ttft_over, tpot_over = ([0] * num_windows for _ in range(3))
    for row, issued_ms in enumerate(samples.issued_ms):
        place = min(int((issued_ms - begin_ms) / 1e3 / window_s), num_windows - 1)
        tpot_ms = samples.tpot_ms(row)
        queries[place] += 1
        ttft_over[place] += samples.ttft_ms(row) > ttft_limit_ms
        tpot_over[place] += tpot_ms is not None and tpot_ms > tpot_limit_ms
    return [_Window(*each) for each in zip(queries, ttft_over, tpot_over, strict=True)]


def _quietest_passing(windows: Sequence[_Window], percentile: float) -> list[_Window]:
    """The most windows, quietest first, that together pass early stopping on both limits."""
    ordered = sorted(windows, key=lambda window: window.queries)
    queries = ttft_over = tpot_over = num_taken = 0
    for place, window in enumerate(ordered, start=1):
        queries += window.queries
        ttft_over += window.ttft_over
        tpot_over += window.tpot_over
        if queries_needed(max(ttft_over, tpot_over), percentile) <= queries:
            num_taken = place
    return ordered[:num_taken]


def _of_windows(taken: Sequence[_Window], num_windows: int, window_s: float) -> QpsEstimate:
    queries = sum(window.queries for window in taken)
    mean = queries / len(taken)
    if len(taken) == num_windows:
        qps = mean / window_s
        text = (
            f"{number(qps)} queries/s, which LoadGen offered on average, met the limits; the run "
            "tried no higher."
        )
        return QpsEstimate(qps=qps, text=text)
    busiest = max(window.queries for window in taken)
    # The mean of a Poisson number that is above the busiest once in a hundred times.
    seldom_above = ((math.sqrt(SELDOM**2 + 4 * busiest) - SELDOM) / 2) ** 2
    qps = min(mean, seldom_above) / window_s
    num_over = {
        "TTFT": sum(window.ttft_over for window in taken),
        "TPOT": sum(window.tpot_over for window in taken),
    }
    over = "".join(f", {number(n)} over the {name} limit" for name, n in num_over.items() if n)
    text = (
        f"An estimate: about {number(qps)} queries/s would have met the limits. The {len(taken)} "
        f"quietest of {num_windows} windows ({quantity(window_s, 's')} each) together pass early "
        f"stopping ({number(queries)} queries{over}); at that load, one window in a hundred is "
        "busier than the busiest of them. Only a run can confirm it."
    )
    return QpsEstimate(qps=qps, text=text)
