"""The highest load at which a simulated test is VALID, and what limits it. Pure.

LoadGen's schedule at one rate is that at another one stretched, so a load differs from the next
only in time. A test at a load is judged by LoadGen's own rule: no more samples over a limit than
its early stopping allows (:mod:`sut.results.early_stopping`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sut.results import early_stopping
from sut.units import number, quantity
from sut.values import Struct

PERCENTILE = 0.99  # of LoadGen's limits on tokens
TOLERANCE = 0.004  # of the peak
STRIDE = 1.25  # from the guess; each is longer than the one before by this factor, up to LONGEST
LONGEST = 4.0
MAX_STRIDES = 14  # to some 7 million times the guess, or that part of it


class Tried(Struct, frozen=True, kw_only=True):
    """A simulated test. The percentiles are None where it was ended early as hopeless."""

    target_qps: float
    num_samples: int
    num_allowed: int  # over a limit
    num_ttft_over: int
    num_tpot_over: int
    ttft_p99_ms: float | None = None
    tpot_p99_ms: float | None = None
    mean_in_flight: float = 0.0

    @property
    def is_valid(self) -> bool:
        return max(self.num_ttft_over, self.num_tpot_over) <= self.num_allowed

    @property
    def limit(self) -> str:
        """The limit that more samples exceed."""
        return "TTFT" if self.num_ttft_over >= self.num_tpot_over else "TPOT"


Attempt = Callable[[float], Tried]


class Peak(Struct, frozen=True, kw_only=True):
    """The highest VALID load, 0 where none was found, with all loads tried, ascending. ``limit`` is
    the one that the next higher load exceeds, ``TTFT`` or ``TPOT``; empty where none did."""

    target_qps: float
    limit: str
    tried: tuple[Tried, ...]

    @property
    def at_peak(self) -> Tried | None:
        valid = (each for each in self.tried if each.target_qps == self.target_qps)
        return next(valid, None)


class Limits(Struct, frozen=True, kw_only=True):
    """LoadGen's limits on the 99th percentiles."""

    ttft_ms: float
    tpot_ms: float


def allowed(num_samples: int) -> int:
    """How many samples may be over a limit; -1 where there are too few for a VALID test."""
    count = early_stopping.num_allowed(num_samples, PERCENTILE)
    return -1 if count is None else count


def find(attempt: Attempt, guess: float, tolerance: float = TOLERANCE) -> Peak:
    """Bisect to the highest VALID load, from ``guess`` queries/s on."""
    search = _Search(attempt, {})
    low, high = search.bracket(guess)
    while high / low > 1 + tolerance:
        middle = (low * high) ** 0.5
        if search.is_valid(middle):
            low = middle
        else:
            high = middle
    tried = tuple(search.tried[qps] for qps in sorted(search.tried))
    valid = [each.target_qps for each in tried if each.is_valid]
    peak = max(valid, default=0.0)
    above = [each for each in tried if each.target_qps > peak and not each.is_valid]
    return Peak(target_qps=peak, limit=above[0].limit if above else "", tried=tried)


class _Search(NamedTuple):
    attempt: Attempt
    tried: dict[float, Tried]

    def is_valid(self, qps: float) -> bool:
        if qps not in self.tried:
            self.tried[qps] = self.attempt(qps)
        return self.tried[qps].is_valid

    def bracket(self, guess: float) -> tuple[float, float]:
        """A VALID load and a higher one that is not; equal where no change was found."""
        low = high = guess
        if self.is_valid(guess):
            for stride in _strides():
                low, high = high, stride * high
                if not self.is_valid(high):
                    return low, high
            return high, high
        for stride in _strides():
            high, low = low, low / stride
            if self.is_valid(low):
                return low, high
        return low, low


def _strides() -> Iterator[float]:
    """Short near a good guess, long where it is far away."""
    return (min(LONGEST, STRIDE**n) for n in range(1, MAX_STRIDES + 1))


def margins(peak: Peak, limits: Limits) -> str:
    """How far the percentiles at the peak are from their limits, in words."""
    at = peak.at_peak
    if at is None or at.ttft_p99_ms is None or at.tpot_p99_ms is None:
        return ""
    return "; ".join(
        f"{name} p99 {quantity(measured, 'ms')} of {quantity(limit, 'ms')}, "
        f"{number(100 * (1 - measured / limit))}% unused"
        for name, measured, limit in (
            ("TTFT", at.ttft_p99_ms, limits.ttft_ms),
            ("TPOT", at.tpot_p99_ms, limits.tpot_ms),
        )
    )
