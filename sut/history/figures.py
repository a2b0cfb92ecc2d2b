"""The figures that a run is judged by, read from its record."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from sut.history.noise import RATE, Statistic
from sut.plan.benchmark import Scenario
from sut.results.measures import Measures, measure
from sut.results.record import Record


class Figure(NamedTuple):
    """A figure of a run. ``better`` is -1 where less of it is, 0 where neither is;
    ``statistic`` is the same of its samples, None where they do not tell."""

    name: str
    unit: str
    better: int
    read: Callable[[Record], float | None]
    statistic: Statistic | None = None


_SERVER = (
    Figure("TTFT p50", "ms", -1, lambda r: _measures(r).ttft_ms.p50, Statistic("ttft", 0.5)),
    Figure("TTFT p99", "ms", -1, lambda r: _measures(r).ttft_ms.p99, Statistic("ttft", 0.99)),
    Figure("TPOT p50", "ms", -1, lambda r: _measures(r).tpot_ms.p50, Statistic("tpot", 0.5)),
    Figure("TPOT p99", "ms", -1, lambda r: _measures(r).tpot_ms.p99, Statistic("tpot", 0.99)),
)
_P50, _P90 = Statistic("latency", 0.5), Statistic("latency", 0.9)
_SINGLE_STREAM = (
    Figure("latency p50", "ms", -1, lambda r: _measures(r).latency_ms.p50, _P50),
    Figure("latency p90", "ms", -1, lambda r: _measures(r).latency_ms.p90, _P90),
)
_TOKENS = Figure("throughput", "tokens/s", 1, lambda r: _measures(r).tokens_per_s, RATE)


def figures(record: Record) -> list[Figure]:
    """What a run is judged by, in its scenario, and its accuracy scores."""
    scores = [Figure(name, "", 0, functools.partial(_score, name)) for name in _scores(record)]
    match record.plan.scenario:
        case Scenario.OFFLINE:
            return [_TOKENS, *scores]
        case Scenario.SINGLE_STREAM:
            return [*_SINGLE_STREAM, _TOKENS, *scores]
        case Scenario.SERVER | Scenario.INTERACTIVE:
            return [*_SERVER, _TOKENS, *scores]


def _measures(record: Record) -> Measures:
    return measure(next((p.loadgen for p in record.phases if p.name == "performance"), {}))


def _scores(record: Record) -> dict[str, float]:
    return next((p.accuracy for p in record.phases if p.accuracy is not None), {})


def _score(name: str, record: Record) -> float | None:
    return _scores(record).get(name)
