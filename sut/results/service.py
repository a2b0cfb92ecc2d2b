"""The time of an engine's step as a function of its work, fitted to measured steps. Pure.

A step takes a constant time and a part for each decoding sequence, each prefill token and each
context token. Around that it varies: ``noise`` is the standard deviation of the logarithm of
measured over fitted time, and a hiccup is a step far above the rest, for example one in which
another process had the core.

The coefficients are those of least squares of the relative error, none below 0. The error is
relative to the fitted time, not to the measured one: dividing by a noisy time favours short steps
and would fit too small a mean.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from sut.results.steps import EngineStep
from sut.values import Struct

MIN_STEPS = 20
ROUNDS = 6  # of weights and outliers; both settle in three or four
OUTLIER = 6.0  # robust standard deviations above the fit make a hiccup,
LEAST_OUTLIER = 0.5  # and at least this much of the fit
NUM_PARTS = 8  # of the measurement, for its spread
# Steps of one speed vary by chance: in 19 of 20 measurements the variance of the parts' means is at
# most this many times that of a part (chi-squared with 7 degrees of freedom, over 8).
CHANCE = 1.76
MOST_STEPS = 20_000  # that are fitted; evenly chosen from more

Row = tuple[float, ...]


class ServiceTimes(Struct, frozen=True, kw_only=True):
    """Step times in microseconds. ``spread`` is the relative standard deviation of the mean step
    time between parts of the measurement, beyond that of independent steps: how much the machine's
    speed changed meanwhile. It is 0 where chance explains it."""

    base_us: float
    per_sequence_us: float
    per_prefill_token_us: float
    per_context_token_us: float
    noise: float = 0.0
    hiccup_probability: float = 0.0
    hiccup_us: float = 0.0
    spread: float = 0.0
    num_steps: int = 0

    def step_us(self, step: EngineStep) -> float:
        """The fitted mean of a step without a hiccup."""
        return (
            self.base_us
            + self.per_sequence_us * step.num_decoding
            + self.per_prefill_token_us * step.num_prefill_tokens
            + self.per_context_token_us * step.context_tokens
        )


def fit(steps: Sequence[EngineStep]) -> ServiceTimes | None:
    """The step times of these steps, in the order of measurement; None for fewer than MIN_STEPS."""
    stride = max(1, len(steps) // MOST_STEPS)
    steps = steps[::stride]
    if len(steps) < MIN_STEPS:
        return None
    rows = [(1.0, *map(float, step[1:])) for step in steps]
    measured = [step.duration_us for step in steps]
    weights = [1 / us for us in measured]
    kept = [True] * len(steps)
    for _ in range(ROUNDS):
        found = _non_negative(rows, measured, weights, kept)
        fitted = [max(1e-3, _dot(found, row)) for row in rows]
        ratios = [us / fit_us for us, fit_us in zip(measured, fitted, strict=True)]
        bound = _bound(ratios)
        kept = [ratio <= bound for ratio in ratios]
        weights = [1 / us for us in fitted]
    logs = [math.log(ratio) for ratio, keep in zip(ratios, kept, strict=True) if keep]
    excess = [
        us - fit_us for us, fit_us, keep in zip(measured, fitted, kept, strict=True) if not keep
    ]
    base, per_sequence, per_prefill, per_context = found
    return ServiceTimes(
        base_us=base,
        per_sequence_us=per_sequence,
        per_prefill_token_us=per_prefill,
        per_context_token_us=per_context,
        noise=statistics.pstdev(logs),
        hiccup_probability=len(excess) / len(steps),
        hiccup_us=statistics.fmean(excess) if excess else 0.0,
        spread=_spread(measured, fitted),
        num_steps=len(steps),
    )


def _bound(ratios: Sequence[float]) -> float:
    """Above it, measured over fitted time is a hiccup."""
    middle = statistics.median(ratios)
    scale = 1.4826 * statistics.median(abs(ratio - middle) for ratio in ratios)
    return middle + max(OUTLIER * scale, LEAST_OUTLIER)


def _spread(measured: Sequence[float], fitted: Sequence[float]) -> float:
    size = max(1, math.ceil(len(measured) / NUM_PARTS))
    parts = [
        sum(measured[at : at + size]) / sum(fitted[at : at + size])
        for at in range(0, len(measured), size)
    ]
    ratios = [us / fit_us for us, fit_us in zip(measured, fitted, strict=True)]
    of_steps, of_parts = statistics.pvariance(ratios) / size, statistics.pvariance(parts)
    if of_parts <= CHANCE * of_steps:
        return 0.0
    return math.sqrt(of_parts - of_steps) / statistics.fmean(parts)


def _non_negative(
    rows: Sequence[Row], values: Sequence[float], weights: Sequence[float], kept: Sequence[bool]
) -> Row:
    """The coefficients, none below 0, with the smallest weighted squared error. With four columns
    every choice of those above 0 can be tried."""
    width = len(rows[0])
    gram, right = _normal_equations(rows, values, weights, kept)
    best: tuple[float, Row] = (0.0, (0.0,) * width)  # relative to the error of all zeros
    for size in range(1, width + 1):
        for columns in itertools.combinations(range(width), size):
            solved = _solved(
                [[gram[i][j] for j in columns] for i in columns], [right[i] for i in columns]
            )
            if solved is None or min(solved) < 0:
                continue
            error = -math.fsum(x * right[i] for x, i in zip(solved, columns, strict=True))
            if error < best[0]:
                of_column = dict(zip(columns, solved, strict=True))
                best = (error, tuple(of_column.get(i, 0.0) for i in range(width)))
    return best[1]


def _normal_equations(
    rows: Sequence[Row], values: Sequence[float], weights: Sequence[float], kept: Sequence[bool]
) -> tuple[list[list[float]], list[float]]:
    width = len(rows[0])
    gram = [[0.0] * width for _ in range(width)]
    right = [0.0] * width
    for row, value, weight, keep in zip(rows, values, weights, kept, strict=True):
        if not keep:
            continue
        scaled = [x * weight for x in row]
        for i, x in enumerate(scaled):
            right[i] += x * value * weight
            for j in range(i, width):
                gram[i][j] += x * scaled[j]
    for i in range(width):
        for j in range(i):
            gram[i][j] = gram[j][i]
    return gram, right


def _solved(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """The solution by elimination, after scaling to a unit diagonal; None where the columns depend
    on each other."""
    if not all(matrix[i][i] > 0 for i in range(len(matrix))):
        return None
    scale = [1 / math.sqrt(matrix[i][i]) for i in range(len(matrix))]
    rows = [
        [x * scale[i] * scale[j] for j, x in enumerate(line)] + [right[i] * scale[i]]
        for i, line in enumerate(matrix)
    ]
    size = len(rows)
    for column in range(size):  # positive semi-definite: no pivoting is needed
        if rows[column][column] < 1e-9:
            return None
        for i in range(column + 1, size):
            factor = rows[i][column] / rows[column][column]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[column], strict=True)]
    solved = [0.0] * size
    for i in reversed(range(size)):
        known = math.fsum(rows[i][j] * solved[j] for j in range(i + 1, size))
        solved[i] = (rows[i][size] - known) / rows[i][i]
    return [x * s for x, s in zip(solved, scale, strict=True)]


def _dot(coefficients: Row, row: Row) -> float:
    return sum(a * b for a, b in zip(coefficients, row, strict=True))
