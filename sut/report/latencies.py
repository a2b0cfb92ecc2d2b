"""The latencies of a phase that every report shows."""

from __future__ import annotations

import msgspec

from sut.results.measures import Measures
from sut.results.phase_record import PhaseRecord


class Latency(msgspec.Struct, frozen=True):
    name: str
    quantiles: tuple[float | None, float | None, float | None]  # p50, p90, p99
    limit: float | None


def latencies(phase: PhaseRecord, measures: Measures) -> list[Latency]:
    """TTFT, TPOT and whole latency in ms: LoadGen's, or the dispatcher's where it has none."""
    limits = {check.code: check.limit for check in phase.verdict.checks}
    own = phase.dispatcher
    rows = []
    for name, loadgens, dispatchers in (
        ("TTFT", measures.ttft_ms, own and own.ttft_ms),
        ("TPOT", measures.tpot_ms, own and own.tpot_ms),
        ("latency", measures.latency_ms, None),
    ):
        label, quantiles = name, (loadgens.p50, loadgens.p90, loadgens.p99)
        if quantiles == (None, None, None) and dispatchers:
            label = f"{name} (by the dispatcher)"
            quantiles = (dispatchers.p50, dispatchers.p90, dispatchers.p99)
        if quantiles != (None, None, None):
            rows.append(Latency(label, quantiles, limits.get(f"{name.lower()}_p99")))
    return rows
