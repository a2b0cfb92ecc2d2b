"""How much of a difference is noise, with the standard library alone.

Inside a run, samples are not independent: a burst slows all that are in flight. So whole blocks of
neighbours, in the order they were issued, are drawn again (a block bootstrap with blocks of about
sqrt(n)). Runs that issued the same samples in the same order are drawn together, block by block:
what both have in common is then no noise. Between runs there are few values, and Student's t is
used.

Figures are compared as ratios, so all of it is of natural logarithms: half and double are as far
from the same, and no latency is below nothing.
"""

from __future__ import annotations

import math
import operator
import random
import statistics
from collections import Counter
from collections.abc import Sequence

from sut.results.sample_log import SampleLog
from sut.values import Struct

CONFIDENCE = 0.99
ROUNDS = 500
LEAST = 1e-9  # a latency of nothing has no logarithm
MAX_BLOCKS = 256  # a block's number is a byte
_STRIDE = 128
BEYOND = 5  # samples that must lie beyond a percentile for its noise to be told


class Spread(Struct, frozen=True, kw_only=True):
    """What differs between runs of one plan: the standard deviation of a figure's logarithm, with
    ``freedom`` degrees."""

    deviation: float
    freedom: int


def spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Pooled over groups, each of runs of one plan; None where no group has two."""
    several = [[log(value) for value in group] for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if freedom == 0:
        return None
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in several)
    return Spread(deviation=math.sqrt(squares / freedom), freedom=freedom)


def half_width(noise: Spread, num_before: int, num_after: int) -> float:
    """Of the interval of the ratio of two means, of so many runs each."""
    error = noise.deviation * math.sqrt(1 / num_before + 1 / num_after)
    return t_quantile((1 + CONFIDENCE) / 2, noise.freedom) * error


def log(value: float) -> float:
    return math.log(max(value, LEAST))


def t_quantile(probability: float, freedom: int) -> float:
    """Student's t: the value that ``probability`` (over 0.5) of its mass lies below."""
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


class Statistic(Struct, frozen=True):
    """A percentile of a latency (``ttft``, ``tpot`` or ``latency``), or ``tokens_per_s``."""

    series: str
    percentile: float = 0.0


RATE = Statistic("tokens_per_s")


def half_widths(
    before: SampleLog, after: SampleLog, wanted: Sequence[Statistic], rounds: int = ROUNDS
) -> dict[Statistic, float]:
    """Of the interval of each statistic's ratio of two runs, from ``rounds`` redrawn pairs of
    them. A statistic that has too few samples is left out.

    The redrawn ratios give a standard error; their own percentiles would be too sure, blocks being
    few (measured: a false alarm in 3 to 10 of 100 pairs of like runs, not in 1).
    """
    one, other = _Blocks(before), _Blocks(after)
    told = [s for s in wanted if one.tells(s) and other.tells(s)]
    ratios: list[list[float]] = [[] for _ in told]
    chance = random.Random(0)  # the same files give the same answer
    together = one.order == other.order
    for _ in range(rounds):
        draw = one.draw(chance)
        others = draw if together else other.draw(chance)
        for number, statistic in enumerate(told):
            now, then = other.redrawn(statistic, others), one.redrawn(statistic, draw)
            ratios[number].append(log(now) - log(then))
    blocks = min(one.num_blocks, other.num_blocks)
    freedom = (blocks if together else 2 * blocks) - (1 if together else 2)
    return {
        statistic: t_quantile((1 + CONFIDENCE) / 2, freedom)
        * statistics.pstdev(ratios[number])
        * math.sqrt(blocks / (blocks - 1))
        for number, statistic in enumerate(told)
    }


class _Blocks:
    """A run's samples in blocks of neighbours. A draw says how often each block is taken."""

    def __init__(self, log: SampleLog) -> None:
        by_issue = sorted(range(len(log)), key=lambda row: (log.issued_ms[row], row))
        length = max(1, math.isqrt(len(log)), math.ceil(len(log) / MAX_BLOCKS))
        block_of = {row: place // length for place, row in enumerate(by_issue)}
        self.order = [log.sample_index[row] for row in by_issue]
        self.num_blocks = math.ceil(len(log) / length)
        self.once = bytes([1] * self.num_blocks)
        latencies: dict[str, list[tuple[float, int]]] = {"ttft": [], "tpot": [], "latency": []}
        for row, block in block_of.items():
            latencies["ttft"].append((log.ttft_ms(row), block))
            latencies["latency"].append((log.completed_ms[row] - log.issued_ms[row], block))
            if (tpot := log.tpot_ms(row)) is not None:
                latencies["tpot"].append((tpot, block))
        self._series = {name: _Series(pairs, self.num_blocks) for name, pairs in latencies.items()}
        self._rates = _rates(log, self.num_blocks)

    def draw(self, chance: random.Random) -> bytes:
        counts = Counter(chance.choices(range(self.num_blocks), k=self.num_blocks))
        return bytes(min(counts[block], 255) for block in range(self.num_blocks))

    def tells(self, statistic: Statistic) -> bool:
        if statistic == RATE:
            return self.num_blocks >= BEYOND
        beyond = self._series[statistic.series].num_values * (1 - statistic.percentile)
        return round(beyond, 9) >= BEYOND

    def redrawn(self, statistic: Statistic, draw: bytes) -> float:
        """The statistic of the samples as drawn."""
        if statistic == RATE:
            return float(sum(map(operator.mul, self._rates, draw)) / sum(draw))
        return self._series[statistic.series].percentile(statistic.percentile, draw)


class _Series:
    """Values from the largest down, and the block of each: a percentile of a draw is then found
    by counting, not by sorting."""

    def __init__(self, pairs: list[tuple[float, int]], num_blocks: int) -> None:
        pairs.sort(reverse=True)
        self.num_values = len(pairs)
        self._values = [value for value, _ in pairs]
        self._blocks = bytes(block for _, block in pairs)
        sizes = Counter(self._blocks)
        self._sizes = [sizes[block] for block in range(num_blocks)]

    def percentile(self, fraction: float, draw: bytes) -> float:
        """By LoadGen's rule: the value at n * fraction of the sorted ones."""
        times = self._blocks.translate(draw.ljust(MAX_BLOCKS, b"\0"))  # each value is taken
        number = sum(map(operator.mul, self._sizes, draw))
        above = number - 1 - math.floor(number * fraction)
        start = 0
        while (passed := sum(times[start : start + _STRIDE])) <= above:
            above -= passed
            start += _STRIDE
        for place in range(start, len(times)):
            above -= times[place]
            if above < 0:
                return self._values[place]
        raise AssertionError("a draw holds as many values as it counts")


def _rates(log: SampleLog, num_windows: int) -> list[float]:
    """Tokens a second in each of as many equal stretches of the run, a sample's tokens spread
    evenly from its admission to its completion."""
    if not len(log):
        return []
    begin, end = min(log.issued_ms), max(log.completed_ms)
    width = (end - begin) / num_windows
    tokens = [0.0] * num_windows
    for row in range(len(log)):
        start, stop = log.admitted_ms[row] - begin, log.completed_ms[row] - begin
        each = log.output_tokens[row] / max(stop - start, 1e-9)
        first, last = int(start / width), min(int(stop / width), num_windows - 1)
        for window in range(first, last + 1):
            inside = min(stop, (window + 1) * width) - max(start, window * width)
            tokens[window] += each * max(inside, 0.0)
    return [1e3 * count / width for count in tokens]
