"""Noise: how far a figure moves between runs of one plan.

Runs are few, so intervals are Student's t. Figures are compared as ratios, so everything is in
natural logarithms: half and double are equally far from equal.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from sut.values import Struct

CONFIDENCE = 0.99
LEAST = 1e-9  # stands for a latency of 0, which has no logarithm


class Spread(Struct, frozen=True, kw_only=True):
    """The standard deviation of a figure's logarithm, with ``freedom`` degrees."""

    deviation: float
    freedom: int


def spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Pooled over groups, each of runs of one plan; None if no group has two."""
    several = [[log(value) for value in group] for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if freedom == 0:
        return None
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in several)
    return Spread(deviation=math.sqrt(squares / freedom), freedom=freedom)


def half_width(noise: Spread, num_before: int) -> float:
    """Of the interval of the ratio of one run to the mean of ``num_before`` runs."""
    error = noise.deviation * math.sqrt(1 / num_before + 1)
    return t_quantile((1 + CONFIDENCE) / 2, noise.freedom) * error


def log(value: float) -> float:
    return math.log(max(value, LEAST))


# By hand: a login node has no scipy, whose import takes longer than all of sut.compare.
def t_quantile(probability: float, freedom: int) -> float:
    """Student's t below which ``probability`` (over 0.5) of the distribution lies."""
    low, high = 0.0, 1.0
    while _t_within(high, freedom) < 2 * probability - 1:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if _t_within(middle, freedom) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return high


def _t_within(t: float, freedom: int) -> float:
    """P(-t < T < t), by the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    if odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
