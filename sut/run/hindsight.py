"""A run's own figures beside a simulation with its step times: how far the simulation is to be
trusted."""

from __future__ import annotations

from collections.abc import Sequence

from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.results import work
from sut.results.measures import Quantiles, measure
from sut.results.record import Record
from sut.run import forecast
from sut.run.forecast import Basis, Forecast
from sut.units import exact, number, quantity
from sut.values import Struct


class Figures(Struct, frozen=True, kw_only=True):
    """Of one performance test, measured or simulated."""

    verdict: str  # VALID or INVALID
    ttft_ms: Quantiles
    tpot_ms: Quantiles


class Hindsight(Struct, frozen=True, kw_only=True):
    """What a run measured at its load, ``target_qps``, and the simulation of that load; all three
    are None for a test without a load. ``earlier_peak_qps`` is the run's own simulated peak, from
    before its test; None where it has none or the peak is the same."""

    target_qps: float | None
    measured: Figures | None
    simulated: Figures | None
    earlier_peak_qps: float | None


def hindsight(record: Record, basis: Basis, found: Sequence[Forecast]) -> Hindsight | None:
    """The run of ``basis`` beside the simulation of its load, and beside the peak of ``found``.
    None in Offline. Raises InputError."""
    phase = next((each for each in record.phases if each.name == Mode.PERFORMANCE), None)
    if phase is None or record.plan.scenario is Scenario.OFFLINE:
        return None
    seen = measure(phase.loadgen)
    measured = simulated = None
    if seen.target_qps is not None:
        verdict = phase.verdict.verdict
        measured = Figures(verdict=verdict, ttft_ms=seen.ttft_ms, tpot_ms=seen.tpot_ms)
        same = forecast.forecast(basis, len(record.plan.replicas), seen.target_qps)
        simulated = Figures(
            verdict=same.verdict, ttft_ms=_quantiles(same.ttft_ms), tpot_ms=_quantiles(same.tpot_ms)
        )
    return Hindsight(
        target_qps=seen.target_qps,
        measured=measured,
        simulated=simulated,
        earlier_peak_qps=_earlier_peak(record, found),
    )


def notes(seen: Hindsight | None) -> list[str]:
    """The same as sentences."""
    if seen is None:
        return []
    lines = []
    if seen.target_qps is not None and seen.measured and seen.simulated:
        lines.append(
            f"At {exact(seen.target_qps)} queries/s the run measured {_words(seen.measured)}; "
            f"simulated: {_words(seen.simulated)}."
        )
    if seen.earlier_peak_qps is not None:
        lines.append(
            f"The run simulated a peak of {quantity(seen.earlier_peak_qps, 'queries/s')} before "
            "its test, with the answers' lengths known then; these are of the test."
        )
    return lines


def _earlier_peak(record: Record, found: Sequence[Forecast]) -> float | None:
    earlier = record.tuning.peak if record.tuning else record.load.peak if record.load else None
    limits = (record.plan.engine.max_num_seqs, record.plan.engine.max_num_batched_tokens)
    peaks = [
        each.peak_qps
        for each in found
        if each.num_replicas == len(record.plan.replicas)
        and (each.max_num_seqs, each.max_num_batched_tokens) == limits
    ]
    if earlier and peaks and peaks[0] and number(earlier.target_qps) != number(peaks[0]):
        return earlier.target_qps
    return None


def _quantiles(exact_ms: work.Quantiles) -> Quantiles:
    """Those that LoadGen has too."""
    return Quantiles(p50=exact_ms.p50, p90=exact_ms.p90, p99=exact_ms.p99)


def _words(test: Figures) -> str:
    ttft, tpot = (quantity(each.p99, "ms") for each in (test.ttft_ms, test.tpot_ms))
    return f"TTFT p99 {ttft}, TPOT p99 {tpot}, {test.verdict}"
