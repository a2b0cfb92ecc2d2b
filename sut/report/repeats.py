"""The performance tests of a run with ``--repeat``: their mean, spread and interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sut.plan.plan import Mode
from sut.report.latencies import latencies
from sut.report.markdown import table
from sut.report.page import Section
from sut.results import noise
from sut.results.measures import measure
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record
from sut.units import number, quantity

CONFIDENCE = 0.95
NO_INTERVAL = "no interval: the tests differ too much"


class Repeated(NamedTuple):
    """A figure of all tests, above 0."""

    name: str
    unit: str
    values: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.values)

    @property
    def half_width(self) -> float | None:
        """Of the mean's interval by Student's t. None where that contains 0: the tests are too few
        for how much they differ."""
        count = len(self.values)
        t = noise.t_quantile((1 + CONFIDENCE) / 2, count - 1)
        found = t * self.deviation / math.sqrt(count)
        return found if found < self.mean else None

    @property
    def interval(self) -> str:
        if self.half_width is None:
            return NO_INTERVAL
        return f"{number(self.mean - self.half_width)} to {number(self.mean + self.half_width)}"


def tests(record: Record) -> list[PhaseRecord]:
    """The finished performance tests of a run that has several at one load; else empty."""
    if record.plan.sweep:
        return []
    found = [phase for phase in record.phases if phase.test.mode is Mode.PERFORMANCE]
    return found if len(found) > 1 else []


def figures(phases: Sequence[PhaseRecord]) -> Iterator[Repeated]:
    """The figures that every test has."""
    by_name: dict[tuple[str, str], list[float]] = {}
    for phase in phases:
        for name, unit, value in _of(phase):
            if value is not None:
                by_name.setdefault((name, unit), []).append(value)
    for (name, unit), values in by_name.items():
        if len(values) == len(phases):
            yield Repeated(name, unit, values)


def _of(phase: PhaseRecord) -> Iterator[tuple[str, str, float | None]]:
    measures = measure(phase.loadgen)
    yield "throughput", "tokens/s", measures.tokens_per_s
    yield "goodput", "samples/s", phase.goodput
    yield "cost", "per million output tokens", phase.cost_per_million_tokens
    for row in latencies(phase, measures):
        p50, _, p99 = row.quantiles
        yield f"{row.name} p50", "ms", p50
        yield f"{row.name} p99", "ms", p99


def lines(record: Record) -> list[str]:
    """The run's tests in a few lines; none where there is one."""
    phases = tests(record)
    if not phases:
        return []
    verdicts = [phase.verdict.verdict for phase in phases]
    valid = verdicts.count("VALID")
    found = [f"{valid} of {quantity(len(phases), 'performance tests')} VALID; mean, 95% interval:"]
    return found + [
        f"{each.name} {quantity(each.mean, each.unit)}, {each.interval}" for each in figures(phases)
    ]


def section(record: Record) -> Section | None:
    phases = tests(record)
    if not phases:
        return None
    names = [phase.name for phase in phases]
    head = ("figure", *names, "mean", "standard deviation", "95% interval of the mean")
    rows = [
        (
            f"{each.name}, {each.unit}",
            *map(number, each.values),
            number(each.mean),
            number(each.deviation),
            each.interval,
        )
        for each in figures(phases)
    ]
    verdicts = ("verdict", *(phase.verdict.verdict for phase in phases), "", "", "")
    text = (
        "The tests ran one after the other on one start of the engines. The run is VALID if each "
        "of them is; its figures elsewhere are those of the first.\n\n"
    )
    return Section(title="Repeats", text=text + table(head, [verdicts, *rows]))
