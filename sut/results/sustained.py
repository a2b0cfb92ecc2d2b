"""The highest load that would have met the limits of a Server run, estimated from its samples.

The run is cut into windows by when its queries were issued. Its quietest windows are taken, the
quietest first, for as long as their queries together pass LoadGen's own early stopping on both
limits. A load is looked for whose own windows would seldom be busier than the busiest of these:
LoadGen's Server queries are a Poisson process, so their number in a window is known to vary by its
square root. The mean rate of the quiet windows itself would be too high: at that rate, other
windows are busier than any of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from sut.results.early_stopping import queries_needed
from sut.results.sample_log import SampleLog
from sut.units import number, quantity
from sut.values import Struct

MIN_WINDOWS = 10
MAX_WINDOWS = 40
SELDOM = 2.33  # standard deviations that a normal number is above once in a hundred times


class QpsEstimate(Struct, frozen=True, kw_only=True):
    """``qps`` is in queries a second, None where the run gives no evidence for any; ``text`` says
    how it came about, or why there is none."""

    qps: float | None
    text: str


class _Window(Struct, frozen=True):
    queries: int
    ttft_over: int
    tpot_over: int


def estimate(
    samples: SampleLog, *, ttft_limit_ms: float, tpot_limit_ms: float, percentile: float
) -> QpsEstimate:
    """The estimate, or why there is none."""
    least = queries_needed(0, percentile)
    if len(samples) < least:
        few = f"{quantity(len(samples), 'queries')} are too few; {number(least)} needed"
        return _none(f"{few} to be sure of p{100 * percentile:g} at any load")
    begin_ms, end_ms = min(samples.issued_ms), max(samples.issued_ms)
    latency_ms = median(
        done - issued for done, issued in zip(samples.completed_ms, samples.issued_ms, strict=True)
    )
    span_ms = end_ms - begin_ms
    # A window shorter than its answers says little of the load they were given under.
    num_windows = min(MAX_WINDOWS, int(span_ms / max(2 * latency_ms, 1e-6)))
    if num_windows < MIN_WINDOWS:
        answers = quantity(latency_ms / 1e3, "s")
        return _none(
            f"queries were issued for {quantity(span_ms / 1e3, 's')}, too short beside answers of "
            f"{answers} to see lighter and heavier load in it"
        )
    window_s = span_ms / num_windows / 1e3
    windows = _windows(samples, begin_ms, window_s, num_windows, ttft_limit_ms, tpot_limit_ms)
    taken = _quietest_passing(windows, percentile)
    if not taken:
        return _none("not even its quietest windows, together, were within the limits")
    return _of_windows(taken, num_windows, window_s)


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
    """The longest row of quietest windows that passes early stopping on both limits."""
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
        text = f"The run's own load, {number(qps)} queries/s, met the limits; it tried no higher."
        return QpsEstimate(qps=qps, text=text)
    busiest = max(window.queries for window in taken)
    qps = min(mean, _seldom_above(busiest)) / window_s
    over = "".join(
        f", {number(num)} over the {name} limit,"
        for name, num in (
            ("TTFT", sum(window.ttft_over for window in taken)),
            ("TPOT", sum(window.tpot_over for window in taken)),
        )
        if num
    )
    text = (
        f"An estimate: about {number(qps)} queries/s would have met the limits. This run's "
        f"{len(taken)} quietest windows of {num_windows} ({quantity(window_s, 's')} each) held "
        f"{number(queries)} queries{over} and pass early stopping together; at that load, one "
        "window in a hundred is busier than the busiest of them. Only a run can show it."
    )
    return QpsEstimate(qps=qps, text=text)


def _seldom_above(busiest: float) -> float:
    """The mean of a Poisson number that is above ``busiest`` once in a hundred times."""
    root = (-SELDOM + math.sqrt(SELDOM**2 + 4 * busiest)) / 2
    return root**2
