"""Noise between runs: Student's t and pooled spreads."""

from __future__ import annotations

import math

import pytest

from sut.results import noise


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 63.657), (2, 9.925), (3, 5.841), (5, 4.032), (10, 3.169), (30, 2.750), (200, 2.601)],
)
def test_students_t_matches_published_tables(freedom: int, expected: float) -> None:
    assert noise.t_quantile(0.995, freedom) == pytest.approx(expected, abs=0.0006)


def test_pools_the_spread_of_several_groups() -> None:
    same = noise.spread([[100.0, 100.0, 100.0], [5.0]])
    assert same is not None and (same.deviation, same.freedom) == (0.0, 2)
    both = noise.spread([[100.0, 110.0], [7.0, 7.7, 7.0]])
    assert both is not None and both.freedom == 3
    assert both.deviation == pytest.approx(math.log(1.1) * math.sqrt((1 / 2 + 2 / 3) / 3))
    assert noise.spread([[1.0], [2.0]]) is None
