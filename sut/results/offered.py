"""The load that a Server run with ``target_qps: auto`` offers, from what its engines completed in
the warm-up. Pure.

Two batches are measured, each with a constant number of samples in flight: a small one and a full
one. Between them the time of a sample and its latencies are interpolated linearly, because a step's
time is a constant plus a part for each sequence.

LoadGen's queries are a Poisson process, so the number of samples in flight varies. A load below
what is completed at some number in flight reaches that number only seldom; FRACTION says how far
below (docs/decisions/auto-offers-a-fraction.md).
"""

from __future__ import annotations

from sut.units import number, quantity
from sut.values import Struct

FRACTION = 0.6  # of what the engines complete
ROOM = 0.8  # of a latency limit


class Batch(Struct, frozen=True, kw_only=True):
    """What all replicas together completed with ``in_flight`` samples at once. Latencies are those
    that 90% of the samples did not exceed; TTFT counts from the sample's arrival at a replica."""

    in_flight: int
    num_samples: int
    samples_per_s: float
    ttft_ms: float
    tpot_ms: float


class Limits(Struct, frozen=True, kw_only=True):
    """LoadGen's limits on the 99th percentiles."""

    ttft_ms: float
    tpot_ms: float


class OfferedLoad(Struct, frozen=True, kw_only=True):
    """The chosen load of all replicas together, what was measured, and the reason in words.
    ``measured_by`` is the id of the earlier run that measured it on the same engines; empty: the
    run that has this record."""

    target_qps: float
    full: Batch
    small: Batch
    reason: str
    measured_by: str = ""

    @property
    def text(self) -> str:
        text = f"{number(self.target_qps)} queries/s, {self.reason}"
        other = f"; measured by run {self.measured_by} on the same engines"
        return text + other if self.measured_by else text


def choose(full: Batch, small: Batch, limits: Limits | None) -> OfferedLoad:
    """The load to offer. ``limits`` is None for a test without limits on tokens."""
    in_flight, binding = _most_in_flight(full, small, limits)
    completed = _samples_per_s(in_flight, full, small)
    return OfferedLoad(
        target_qps=float(f"{FRACTION * completed:.3g}"),
        full=full,
        small=small,
        reason=f"{FRACTION:.0%} of the {quantity(completed, 'samples/s')} "
        + _why(in_flight, binding, full, small),
    )


class _Bound(Struct, frozen=True):
    """A latency of both batches, in ms, and its limit."""

    name: str
    small: float
    full: float
    limit: float


def _why(in_flight: float, binding: _Bound | None, full: Batch, small: Batch) -> str:
    if binding is None:
        return f"completed with all {full.in_flight} places taken"
    at = f"expected at {quantity(in_flight, 'samples')} at once"
    if binding.small < ROOM * binding.limit:
        allowed = quantity(ROOM * binding.limit, "ms")
        return f"{at}, where {binding.name} p90 is {allowed}, {ROOM:.0%} of its limit"
    return (
        f"{at}; {binding.name} p90 was {quantity(binding.small, 'ms')} with only "
        f"{small.in_flight}, over {ROOM:.0%} of its limit of {quantity(binding.limit, 'ms')}, so "
        "no load is sure to meet it"
    )


def _most_in_flight(
    full: Batch, small: Batch, limits: Limits | None
) -> tuple[float, _Bound | None]:
    """How many samples may be in flight, and the limit that prevents more; None where the engines
    have no more places."""
    if limits is None:
        return full.in_flight, None
    found: tuple[float, _Bound | None] = (full.in_flight, None)
    for bound in (
        _Bound("TTFT", small.ttft_ms, full.ttft_ms, limits.ttft_ms),
        _Bound("TPOT", small.tpot_ms, full.tpot_ms, limits.tpot_ms),
    ):
        if bound.full <= ROOM * bound.limit:
            continue
        in_flight = _in_flight_at(ROOM * bound.limit, bound, full, small)
        if found[1] is None or in_flight < found[0]:
            found = (in_flight, bound)
    return found


def _in_flight_at(latency_ms: float, bound: _Bound, full: Batch, small: Batch) -> float:
    """The number in flight, at least 1, at which a latency that the full batch exceeds is met."""
    if bound.small >= latency_ms:  # also where noise made the small batch the slower one
        return max(1.0, small.in_flight * latency_ms / bound.small)
    share = (latency_ms - bound.small) / (bound.full - bound.small)
    return small.in_flight + share * (full.in_flight - small.in_flight)


def _samples_per_s(in_flight: float, full: Batch, small: Batch) -> float:
    """What is completed with so many in flight. By Little's law a sample takes their number over
    the rate; below the small batch it takes as long as in it."""
    small_s, full_s = (batch.in_flight / batch.samples_per_s for batch in (small, full))
    if in_flight <= small.in_flight or full.in_flight == small.in_flight:
        return in_flight / small_s
    share = (in_flight - small.in_flight) / (full.in_flight - small.in_flight)
    return in_flight / (small_s + share * (full_s - small_s))
