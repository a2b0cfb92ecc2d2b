"""When a limit was crossed: from the samples of a phase, in their order of completion."""

from __future__ import annotations

from collections.abc import Iterable

from sut.results.early_stopping import queries_needed
from sut.results.sample_log import SampleLog
from sut.values import Struct


class Crossing(Struct, frozen=True, kw_only=True):
    """Seconds from the phase's start, by the dispatcher's clock. ``first_s``: the first sample
    over the limit was done; ``lost_s``: there were more of them than early stopping lets pass in
    a run of this size. None where that never was."""

    num_over: int
    first_s: float | None
    lost_s: float | None


def of_ttft(samples: SampleLog, limit_ms: float, percentile: float) -> Crossing:
    ttft_ms = (samples.ttft_ms(row) for row in range(len(samples)))
    return _crossing(samples, ttft_ms, limit_ms, percentile)


def of_tpot(samples: SampleLog, limit_ms: float, percentile: float) -> Crossing:
    tpot_ms = (samples.tpot_ms(row) for row in range(len(samples)))
    return _crossing(samples, tpot_ms, limit_ms, percentile)


def num_allowed(num_queries: int, percentile: float) -> int | None:
    """How many of ``num_queries`` may be over a limit; None where there are too few for any."""
    if queries_needed(0, percentile) > num_queries:
        return None
    low, high = 0, num_queries
    while high - low > 1:
        middle = (low + high) // 2
        passes = queries_needed(middle, percentile) <= num_queries
        low, high = (middle, high) if passes else (low, middle)
    return low


def _crossing(
    samples: SampleLog, latencies_ms: Iterable[float | None], limit_ms: float, percentile: float
) -> Crossing:
    over_s = [
        done_ms / 1e3
        for done_ms, latency in zip(samples.completed_ms, latencies_ms, strict=True)
        if latency is not None and latency > limit_ms
    ]
    allowed = num_allowed(len(samples), percentile)
    lost = allowed is not None and len(over_s) > allowed
    return Crossing(
        num_over=len(over_s),
        first_s=over_s[0] if over_s else None,
        lost_s=over_s[allowed] if lost and allowed is not None else None,
    )
