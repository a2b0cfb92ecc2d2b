"""A run's own figures beside a simulation with its step times: how far the simulation is to be
trusted."""

from __future__ import annotations

from collections.abc import Sequence

from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.results.measures import measure
from sut.results.record import Record
from sut.run import forecast
from sut.run.forecast import Basis, Forecast
from sut.units import exact, number, quantity


def notes(record: Record, basis: Basis, found: Sequence[Forecast]) -> list[str]:
    """What the run of ``basis`` measured at its load against the simulation of that load, and why
    its own simulated peak differs from that of ``found``. Empty in Offline. Raises InputError."""
    phase = next((each for each in record.phases if each.name == Mode.PERFORMANCE), None)
    if phase is None or record.plan.scenario is Scenario.OFFLINE:
        return []
    seen = measure(phase.loadgen)
    lines = []
    if seen.target_qps is not None:
        same = forecast.forecast(basis, len(record.plan.replicas), seen.target_qps)
        measured = _words(seen.ttft_ms.p99, seen.tpot_ms.p99, phase.verdict.verdict)
        simulated = _words(same.ttft_ms.p99, same.tpot_ms.p99, same.verdict)
        lines.append(
            f"At {exact(seen.target_qps)} queries/s the run measured {measured}; simulated: "
            f"{simulated}."
        )
    earlier = record.tuning.peak if record.tuning else record.load.peak if record.load else None
    limits = (record.plan.engine.max_num_seqs, record.plan.engine.max_num_batched_tokens)
    peaks = [
        each.peak_qps
        for each in found
        if each.num_replicas == len(record.plan.replicas)
        and (each.max_num_seqs, each.max_num_batched_tokens) == limits
    ]
    if earlier and peaks and peaks[0] and number(earlier.target_qps) != number(peaks[0]):
        lines.append(
            f"The run simulated a peak of {quantity(earlier.target_qps, 'queries/s')} before its "
            "test, with the answers' lengths known then; these are of the test."
        )
    return lines


def _words(ttft_ms: float | None, tpot_ms: float | None, verdict: str) -> str:
    return f"TTFT p99 {quantity(ttft_ms, 'ms')}, TPOT p99 {quantity(tpot_ms, 'ms')}, {verdict}"
