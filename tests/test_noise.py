"""What is called noise is noise, and what is not is not."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.history import noise
from sut.history.noise import RATE, Statistic
from sut.results.sample_log import SampleLog

TTFT_P50, TTFT_P99 = Statistic("ttft", 0.5), Statistic("ttft", 0.99)
TPOT_P50 = Statistic("tpot", 0.5)


def log(ttft_ms: Sequence[float], num_tokens: int = 11, first: int = 0) -> SampleLog:
    """A sample every 10 ms, each with these milliseconds to its first token and 2 ms a token."""
    issued = [10.0 * i for i in range(len(ttft_ms))]
    begun = [at + ttft for at, ttft in zip(issued, ttft_ms, strict=True)]
    return SampleLog(
        sample_index=array("q", range(first, first + len(issued))),
        replica=array("q", [0] * len(issued)),
        prompt_tokens=array("q", [100] * len(issued)),
        output_tokens=array("q", [num_tokens] * len(issued)),
        issued_ms=array("d", issued),
        admitted_ms=array("d", issued),
        first_token_ms=array("d", begun),
        completed_ms=array("d", [at + 2.0 * (num_tokens - 1) for at in begun]),
    )


def bursts(seed: int, count: int = 600, scale: float = 1.0) -> list[float]:
    """TTFTs that are like their neighbours': what is slow stays slow for a while."""
    chance = random.Random(seed)
    state, values = 0.0, []
    for _ in range(count):
        state = 0.8 * state + chance.gauss(0, 0.2)
        values.append(scale * 100 * math.exp(state))
    return values


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 63.657), (2, 9.925), (3, 5.841), (5, 4.032), (10, 3.169), (30, 2.750), (200, 2.601)],
)
def test_students_t_is_that_of_the_tables(freedom: int, expected: float) -> None:
    assert noise.t_quantile(0.995, freedom) == pytest.approx(expected, abs=0.0006)


@given(
    ttft=st.lists(st.floats(0.1, 1e4), min_size=30, max_size=400),
    percentile=st.sampled_from([0.5, 0.9, 0.99]),
    seed=st.integers(0, 1000),
)
def test_a_percentile_of_a_draw_is_that_of_the_values_drawn(
    ttft: list[float], percentile: float, seed: int
) -> None:
    whole = log(ttft)
    blocks = noise._Blocks(whole)
    length = math.isqrt(len(ttft))
    for draw in (blocks.once, blocks.draw(random.Random(seed))):
        taken = itertools.chain.from_iterable(
            [whole.ttft_ms(row)] * draw[row // length] for row in range(len(ttft))
        )
        values = sorted(taken)
        expected = values[math.floor(len(values) * percentile)]
        assert blocks.redrawn(Statistic("ttft", percentile), draw) == expected


def ratio(one: SampleLog, other: SampleLog) -> float:
    """The logarithm of that of the medians."""
    return math.log(median(other) / median(one))


def median(samples: SampleLog) -> float:
    values = sorted(samples.ttft_ms(row) for row in range(len(samples)))
    return values[len(values) // 2]


def width(one: SampleLog, other: SampleLog) -> float:
    return noise.half_widths(one, other, [TTFT_P50], 200)[TTFT_P50]


def test_the_same_files_give_the_same_answer() -> None:
    one, other = log(bursts(1)), log(bursts(2), first=7)
    assert width(one, other) == width(one, other)


def test_runs_that_differ_by_chance_alone_are_seldom_called_different() -> None:
    # Bursts make independent draws of single samples far too sure of themselves: 19 alarms.
    alarms = 0
    for seed in range(100):
        one, other = log(bursts(2 * seed)), log(bursts(2 * seed + 1), first=7)
        alarms += abs(ratio(one, other)) > width(one, other)
    assert alarms <= 3


def test_a_real_difference_is_more_than_noise() -> None:
    one, other = log(bursts(1)), log(bursts(2, scale=2.0), first=7)
    assert ratio(one, other) > width(one, other) > 0


def test_what_runs_of_the_same_samples_have_in_common_is_no_noise() -> None:
    slow = bursts(1)
    chance = random.Random(3)
    again = [value * math.exp(chance.gauss(0, 0.02)) for value in slow]
    assert width(log(slow), log(again)) < width(log(slow), log(again, first=7)) / 3


def test_too_few_samples_tell_nothing() -> None:
    few, enough = log(bursts(1, 499)), log(bursts(1, 500))
    assert TTFT_P99 not in noise.half_widths(few, enough, [TTFT_P99], 20)
    assert TTFT_P99 in noise.half_widths(enough, enough, [TTFT_P99], 20)
    assert noise.half_widths(log([]), log([]), [TTFT_P50, RATE], 20) == {}


def test_answers_of_one_token_have_no_time_per_token() -> None:
    short = log(bursts(1), num_tokens=1)
    assert set(noise.half_widths(short, short, [TTFT_P50, TPOT_P50], 20)) == {TTFT_P50}


def test_tokens_a_second_are_all_tokens_over_all_the_time() -> None:
    samples = log(bursts(1))
    blocks = noise._Blocks(samples)
    length_s = (max(samples.completed_ms) - min(samples.issued_ms)) / 1e3
    expected = sum(samples.output_tokens) / length_s
    assert blocks.redrawn(RATE, blocks.once) == pytest.approx(expected)


def test_the_spread_of_several_groups_is_pooled() -> None:
    same = noise.spread([[100.0, 100.0, 100.0], [5.0]])
    assert same is not None and (same.deviation, same.freedom) == (0.0, 2)
    both = noise.spread([[100.0, 110.0], [7.0, 7.7, 7.0]])
    assert both is not None and both.freedom == 3
    assert both.deviation == pytest.approx(math.log(1.1) * math.sqrt((1 / 2 + 2 / 3) / 3))
    assert noise.spread([[1.0], [2.0]]) is None
