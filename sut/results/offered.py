"""The load that a Server run with ``target_qps: auto`` offers. Pure.

The warm-up measures two batches, each with a constant number of samples in flight, and every step
of the engines meanwhile. With the step times that fit them, this run's own performance phase is
simulated (:mod:`sut.results.peak`). The run offers the highest load that is VALID in simulation
even if the machine is slower by a stated factor than it was when it was measured
(docs/decisions/auto-simulates-the-run.md).
"""

from __future__ import annotations

from collections.abc import Callable

from sut.results.peak import Peak
from sut.results.service import ServiceTimes
from sut.units import exact, number, quantity
from sut.values import Struct

SLOWDOWN = 1.75  # of every step, which the run must survive
SPREADS = 3.0  # and more by this many times the spread that was measured,
MOST_SLOWDOWN = 2.5  # up to this
LEAST = 0.4  # of the simulated peak: offered however slow the machine may become
FRACTION = 0.6  # of what a batch completes, where nothing can be simulated


class Batch(Struct, frozen=True, kw_only=True):
    """What all replicas together completed with ``in_flight`` samples at once. Latencies are those
    that 90% of the samples did not exceed; TTFT counts from the sample's arrival at a replica."""

    in_flight: int
    num_samples: int
    samples_per_s: float
    ttft_ms: float
    tpot_ms: float


class OfferedLoad(Struct, frozen=True, kw_only=True):
    """The chosen load of all replicas together, what was measured, fitted and simulated, and the
    reason in words. ``peak`` was simulated with the fitted step times, ``slowed`` with every step
    ``slowdown`` times as long. ``measured_by`` is the id of the earlier run that measured it on the
    same engines; empty: the run that has this record."""

    target_qps: float
    full: Batch
    small: Batch
    reason: str
    service: ServiceTimes | None = None
    peak: Peak | None = None
    slowdown: float | None = None
    slowed: Peak | None = None
    measured_by: str = ""

    @property
    def text(self) -> str:
        text = f"{exact(self.target_qps)} queries/s, {self.reason}"
        other = f"; measured by run {self.measured_by} on the same engines"
        return text + other if self.measured_by else text


def choose(
    full: Batch,
    small: Batch,
    service: ServiceTimes | None,
    find_peak: Callable[[float], Peak] | None,
    *,
    has_arrivals: bool = True,
    has_limits: bool,
) -> OfferedLoad:
    """The load to offer. ``find_peak`` simulates the run with every step so many times as long. It
    is None without limits on tokens; ``service`` is None where too few steps were seen, and then
    ``find_peak`` too. Without arrivals, in Offline, the load is only the rate that LoadGen expects.
    """
    if not has_arrivals:
        return _fraction(1.0, full, f"with all {full.in_flight} places taken", full, small)
    if not has_limits:
        why = f"with all {full.in_flight} places taken; the test has no token limits"
        return _fraction(FRACTION, full, why, full, small)
    if service is None or find_peak is None:
        why = f"with {small.in_flight} at once; too few steps for a simulation"
        return _fraction(FRACTION, small, why, full, small)
    slowdown = min(MOST_SLOWDOWN, SLOWDOWN * (1 + SPREADS * service.spread))
    peak, slowed = find_peak(1.0), find_peak(slowdown)
    qps, reason = _chosen(peak, slowed, slowdown, small)
    return OfferedLoad(
        target_qps=float(f"{qps:.3g}"),
        full=full,
        small=small,
        reason=reason,
        service=service,
        peak=peak,
        slowdown=slowdown,
        slowed=slowed,
    )


def _chosen(peak: Peak, slowed: Peak, slowdown: float, small: Batch) -> tuple[float, str]:
    if not peak.target_qps:
        lowest = peak.tried[0]
        return (
            FRACTION * small.samples_per_s / small.in_flight,
            f"{FRACTION:.0%} of what one sample at a time allows; no load is VALID in simulation: "
            f"{lowest.limit} is over its limit at every load",
        )
    of_peak = f"of the simulated peak of {quantity(peak.target_qps, 'queries/s')}"
    limited = f", which {peak.limit} limits" if peak.limit else ""
    slow = f"if the engines become {number(slowdown)} times as slow as in the warm-up"
    if slowed.target_qps >= LEAST * peak.target_qps:
        qps = min(slowed.target_qps, peak.target_qps)
        why = f"VALID in simulation even {slow}"
    else:
        qps = LEAST * peak.target_qps
        why = f"warning: INVALID in simulation {slow}, so run nothing else on their machine"
    return qps, f"{qps / peak.target_qps:.0%} {of_peak}{limited}; {why}"


def _fraction(share: float, of: Batch, why: str, full: Batch, small: Batch) -> OfferedLoad:
    completed = quantity(of.samples_per_s, "samples/s")
    return OfferedLoad(
        target_qps=float(f"{share * of.samples_per_s:.3g}"),
        full=full,
        small=small,
        reason=f"{share:.0%} of the {completed} completed {why}",
    )
