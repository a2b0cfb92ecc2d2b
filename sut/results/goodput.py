"""Goodput: the samples a second that are within both latency limits."""

from __future__ import annotations

from sut.results import rules
from sut.results.measures import measure
from sut.results.mllog import DetailLog
from sut.results.sample_log import SampleLog


def of(log: DetailLog, samples: SampleLog) -> float | None:
    """The share of ``samples`` within LoadGen's limits on TTFT and TPOT, times its samples per
    second. None for a test without limits, or without a rate."""
    limits, rate = rules.token_limits_ns(log), measure(log.values).samples_per_s
    if not limits or rate is None or not len(samples):
        return None
    within = sum(
        (samples.ttft_ms(row) or 0.0) * 1e6 <= limits.get("TTFT", float("inf"))
        and (samples.tpot_ms(row) or 0.0) * 1e6 <= limits.get("TPOT", float("inf"))
        for row in range(len(samples))
    )
    return round(rate * within / len(samples), 6)
