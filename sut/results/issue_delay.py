"""How late LoadGen issued the queries of a Server test, from its schedule and the samples. Pure.

Latencies count from the scheduled times, so a query that is issued late has a longer latency
through no fault of the engines. The schedule is made again after the test; nothing that serves a
query knows it.

The common zero of both clocks is unknown. Delays count from the query that was issued soonest after
its time.
"""

from __future__ import annotations

from collections.abc import Sequence

from sut.results.work import quantiles
from sut.values import Struct


class IssueDelay(Struct, frozen=True, kw_only=True):
    """Issued minus scheduled time, in ms. ``scheduled`` and ``issued`` are the numbers of queries
    in each second of the test, ``max_ms_by_second`` the longest delay of those scheduled in it."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    scheduled: tuple[int, ...]
    issued: tuple[int, ...]
    max_ms_by_second: tuple[float, ...]


def of(scheduled_ms: Sequence[float], issued_ms: Sequence[float]) -> IssueDelay | None:
    """Of the same queries: ``scheduled_ms`` in order, ``issued_ms`` in any. None where one of them
    was not issued or is not known, or there is none."""
    if not len(issued_ms) or len(scheduled_ms) != len(issued_ms):
        return None
    pairs = list(zip(scheduled_ms, sorted(issued_ms), strict=True))
    zero = min(issued - scheduled for scheduled, issued in pairs)
    return _summary([(scheduled, issued - zero) for scheduled, issued in pairs])


def _summary(pairs: list[tuple[float, float]]) -> IssueDelay:
    delays = quantiles(issued - scheduled for scheduled, issued in pairs)
    assert delays is not None
    num_seconds = 1 + int(max(issued for _, issued in pairs) / 1e3)
    scheduled, issued = [0] * num_seconds, [0] * num_seconds
    longest = [0.0] * num_seconds
    for planned, actual in pairs:
        second = int(planned / 1e3)
        scheduled[second] += 1
        issued[int(actual / 1e3)] += 1
        longest[second] = max(longest[second], actual - planned)
    return IssueDelay(
        p50_ms=round(delays.p50, 3),
        p99_ms=round(delays.p99, 3),
        max_ms=round(delays.max, 3),
        scheduled=tuple(scheduled),
        issued=tuple(issued),
        max_ms_by_second=tuple(round(each, 3) for each in longest),
    )
