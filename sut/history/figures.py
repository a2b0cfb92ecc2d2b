"""The figures of a run that comparisons show, read from its record."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.report import repeats, sweep
from sut.report.latencies import latencies
from sut.report.summary import PER_MILLION
from sut.results.measures import Measures, measure
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record

LEAST_SAMPLES = 10
LEAST_SAMPLES_P99 = 100  # p99 of fewer is the slowest of them, or near it


class Figure(NamedTuple):
    """``better`` is 1 if more is better, -1 if less is, 0 if neither. With fewer than ``least``
    samples it has no interval."""

    name: str
    unit: str
    better: int
    read: Callable[[Record], float | None]
    least: int = LEAST_SAMPLES


def performance(record: Record) -> PhaseRecord | None:
    """The performance phase, if it finished; of a sweep the one at the highest VALID load, if there
    is one."""
    if best := sweep.highest_valid(sweep.loads(record)):
        return best.phases[0]
    return next((phase for phase in record.phases if phase.name == Mode.PERFORMANCE), None)


def each_test(record: Record) -> list[Record]:
    """The run once for each of its performance tests, as if it had no other."""
    tests = repeats.tests(record)
    if not tests:
        return [record]
    others = [phase for phase in record.phases if phase not in tests]
    alone = (msgspec.structs.replace(phase, name=str(Mode.PERFORMANCE)) for phase in tests)
    return [msgspec.structs.replace(record, phases=(phase, *others)) for phase in alone]


def figures(record: Record) -> list[Figure]:
    """What a run is judged by in its scenario, and its accuracy scores."""
    scores = [Figure(name, "", 0, functools.partial(_score, name), 0) for name in _scores(record)]
    scores += [COST] if COST.read(record) is not None else []
    match record.plan.scenario:
        case Scenario.OFFLINE:
            return [TOKENS, *scores]
        case Scenario.SINGLE_STREAM:
            return [_latency("latency", "p50"), _latency("latency", "p90"), TOKENS, *scores]
        case Scenario.SERVER | Scenario.INTERACTIVE:
            return [*TOKEN_LATENCIES, TOKENS, *scores]


def _latency(name: str, quantile: str) -> Figure:
    """LoadGen's, or the dispatcher's if LoadGen has none."""
    place = ("p50", "p90", "p99").index(quantile)

    def read(record: Record) -> float | None:
        phase = performance(record)
        rows = latencies(phase, measure(phase.loadgen)) if phase else ()
        return next((row.quantiles[place] for row in rows if row.name.split()[0] == name), None)

    least = LEAST_SAMPLES_P99 if quantile == "p99" else LEAST_SAMPLES
    return Figure(f"{name} {quantile}", "ms", -1, read, least)


def num_samples(record: Record) -> int | None:
    """Of its performance test; None if unknown."""
    return _measures(record).num_samples


def _measures(record: Record) -> Measures:
    phase = performance(record)
    return measure(phase.loadgen if phase else {})


def _cost(record: Record) -> float | None:
    phase = performance(record)
    return phase.cost_per_million_tokens if phase else None


def _scores(record: Record) -> dict[str, float]:
    return next((p.accuracy for p in record.phases if p.accuracy is not None), {})


def _score(name: str, record: Record) -> float | None:
    return _scores(record).get(name)


TOKEN_LATENCIES = tuple(_latency(name, p) for name in ("TTFT", "TPOT") for p in ("p50", "p99"))
COST = Figure("cost", PER_MILLION, 0, _cost)  # no rule of its own: it follows the throughput
TOKENS = Figure("throughput", "tokens/s", 1, lambda record: _measures(record).tokens_per_s)
SAMPLES = Figure("samples", "samples/s", 1, lambda record: _measures(record).samples_per_s)
