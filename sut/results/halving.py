"""Which of several engine settings is the best, by successive halving. Pure.

Each round measures every setting that is left and keeps the better half, each round with tests of
twice the length of the one before. The last round has two settings and measures both twice, in the
order A B B A, so that a machine that becomes slower or faster changes both alike; the two runs of
each show the noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from sut.results import noise
from sut.values import NonNegativeInt, Struct

CONFIDENCE = 0.95  # of the interval beside the margin
FINALISTS = 2


class Measurement(Struct, frozen=True, kw_only=True):
    """A run with a setting, by its index. ``value`` is larger for a better one; None where the run
    gave none, for the reason in ``why``, or has not ended yet."""

    setting: NonNegativeInt
    round: NonNegativeInt
    run_dir: str
    job_id: str
    value: float | None = None
    why: str = ""

    @property
    def has_ended(self) -> bool:
        return self.value is not None or bool(self.why)


class Result(Struct, frozen=True, kw_only=True):
    """The best setting by its index. ``margin`` is its mean over the second's, less 1;
    ``half_width`` is that of the margin's interval, None where no setting has two runs of one
    length."""

    best: int
    value: float
    second: int | None = None
    margin: float | None = None
    half_width: float | None = None

    @property
    def is_certain(self) -> bool:
        margin, half_width = self.margin, self.half_width
        return margin is not None and half_width is not None and margin > half_width


def to_measure(num_settings: int, measured: Sequence[Measurement]) -> tuple[int, list[int]]:
    """The round that is to be continued, and the settings that it has still to measure, in order;
    none when the search is over."""
    left, number = list(range(num_settings)), 0
    while True:
        order = _order(left)
        done = [each.setting for each in measured if each.round == number and each.has_ended]
        for setting in done:
            order.remove(setting)
        if order or len(left) <= FINALISTS:
            return number, _without_failed(order, measured)
        left = _kept(left, measured, number)
        if len(left) <= 1:
            return number, []
        number += 1


def _order(left: Sequence[int]) -> list[int]:
    if len(left) == FINALISTS:
        return [*left, *reversed(left)]
    return list(left)


def _without_failed(order: Sequence[int], measured: Sequence[Measurement]) -> list[int]:
    """A setting whose engines failed fails again."""
    failed = {each.setting for each in measured if each.why}
    return [setting for setting in order if setting not in failed]


def _kept(left: Sequence[int], measured: Sequence[Measurement], number: int) -> list[int]:
    """The better half of a round, best first, and at least two."""
    ranked = ranking(left, measured, number)
    return ranked[: max(FINALISTS, math.ceil(len(left) / 2))]


def ranking(left: Sequence[int], measured: Sequence[Measurement], number: int) -> list[int]:
    """The settings that have a value in a round, best first."""
    means = {setting: mean(setting, measured, number) for setting in left}
    known = [setting for setting in left if means[setting] is not None]
    return sorted(known, key=lambda setting: -(means[setting] or 0.0))


def mean(setting: int, measured: Sequence[Measurement], number: int) -> float | None:
    """Of a setting's runs in a round; None without one."""
    values = _values(setting, measured, number)
    return statistics.fmean(values) if values else None


def _values(setting: int, measured: Sequence[Measurement], number: int) -> list[float]:
    return [
        each.value
        for each in measured
        if each.setting == setting and each.round == number and each.value is not None
    ]


def result(num_settings: int, measured: Sequence[Measurement]) -> Result | None:
    """Of a search that is over; None where no setting could be measured."""
    last = max((each.round for each in measured if each.value is not None), default=None)
    if last is None:
        return None
    best, *others = ranking(range(num_settings), measured, last)
    value = mean(best, measured, last)
    assert value is not None
    if not others:
        return Result(best=best, value=value)
    second = mean(others[0], measured, last)
    groups = [_values(each, measured, last) for each in (best, others[0])]
    return Result(
        best=best,
        value=value,
        second=others[0],
        margin=value / second - 1 if second else None,
        half_width=_half_width(groups) if min(map(min, groups)) > 0 else None,
    )


def _half_width(groups: Sequence[Sequence[float]]) -> float | None:
    """Of the interval of the ratio of two means."""
    spread = noise.spread(groups)
    if spread is None:
        return None
    error = spread.deviation * math.sqrt(sum(1 / len(group) for group in groups))
    return math.expm1(noise.t_quantile((1 + CONFIDENCE) / 2, spread.freedom) * error)
