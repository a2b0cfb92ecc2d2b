"""Runs compared: what differs, and which figures changed by more than noise.

Noise is the difference between repeated runs of one plan. Pure: records come in.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from sut.errors import CANCELLED, InputError
from sut.history.figures import Figure, each_test, figures, num_samples, performance
from sut.report.summary import reasons
from sut.results import noise, sameness
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record
from sut.values import Struct

MIN_FREEDOM = 3  # degrees, from which Student's t is narrow enough to be of use
MIN_HISTORY = 3  # earlier runs for the same reason
Word = Literal["better", "worse", "within noise", "noise not known", "too noisy", "too few samples"]
WIDEST = math.log(2)  # noise that hides a figure's doubling is too wide to be of use
Widths = Mapping[str, float]  # by figure: how far noise moves the logarithm of a ratio


class Run(Struct, frozen=True, kw_only=True):
    """A run to compare. ``record`` is None if it has none (yet). ``report`` links to its report;
    empty if unknown."""

    name: str
    record: Record | None
    report: str = ""

    @property
    def known(self) -> Record:
        """The record of a run that must have one."""
        assert self.record is not None
        return self.record

    @property
    def word(self) -> str:
        return self.record.word if self.record else "no record"

    @property
    def headline(self) -> str:
        return self.record.headline if self.record else "no record"

    @property
    def phase(self) -> PhaseRecord | None:
        """Its performance phase, if it finished."""
        return performance(self.record) if self.record else None

    @property
    def is_cancelled(self) -> bool:
        failure = self.record.failure if self.record else None
        return failure is not None and failure.code == CANCELLED

    def why(self) -> list[str]:
        """Why it is not VALID; empty if it is."""
        if self.record is None:
            return ["no record: the run has not finished or was never started"]
        if self.record.failure is not None:
            return [f"{self.record.failure.code}: {self.record.failure.first_line}"]
        return reasons(self.record.phases)


class Difference(Struct, frozen=True, kw_only=True):
    """One figure before and after. ``change`` is relative: 0.1 is 10% more. The true change is
    from ``low`` to ``high`` with 99% confidence; None if the noise is not known or too wide, or if
    a run has too few samples."""

    figure: str
    unit: str
    before: float
    after: float
    change: float
    low: float | None
    high: float | None
    word: Word


class Comparison(Struct, frozen=True, kw_only=True):
    """A run compared with one earlier run, or with several of its plan. ``noise`` is the source
    of the intervals; ``regressions`` are changes for the worse beyond noise and tolerance."""

    before: tuple[str, ...]
    after: str
    verdict_before: str
    verdict_after: str
    changed: tuple[str, ...]
    differences: tuple[Difference, ...]
    noise: str
    regressions: tuple[str, ...]
    without_test: tuple[str, ...] = ()  # runs without a finished performance test
    same_benchmark: bool = True  # otherwise nothing is a regression


def compare(before: Run, after: Run, repeats: Sequence[Record], tolerance: float) -> Comparison:
    """Compare two runs. ``repeats`` are other runs of either plan. Of a run with several
    performance tests the figures are their means, and their spread is noise too. A figure may get
    worse by ``tolerance`` (0.02 is 2%) without being a regression.

    Raises InputError for runs of different scenarios.
    """
    one, other = before.known, after.known
    if why := why_not_comparable([one, other], ("plan.scenario",)):
        raise InputError(
            f"{after.name} is not comparable with {before.name}: {why}",
            hint="list the runs of one scenario: python -m sut.history --scenario NAME",
        )
    groups = _groups(one, other, repeats)
    freedom = sum(len(group) - 1 for group in groups)
    widths: Widths = {}
    if freedom >= MIN_FREEDOM:
        widths = _widths(figures(one), groups)
        tests = "tests" if len(each_test(one)) + len(each_test(other)) > 2 else "runs"
        source = f"between {sum(map(len, groups))} {tests} of the same plans"
    elif freedom:
        source = f"unknown: too few runs of the same plans ({sum(map(len, groups))})"
    else:
        source = "unknown: one run on each side is too few to measure it"
    fewest = _fewest(one, other, *(record for group in groups for record in group))
    differences = [
        _difference(figure, value, now, widths.get(figure.name), fewest)
        for figure, value, now in _pairs(one, other)
    ]
    return _comparison([before], after, differences, source, tolerance)


def compare_with_history(after: Run, earlier: Sequence[Run], tolerance: float) -> Comparison:
    """Compare a run with earlier runs of its plan, at least one, oldest first. With fewer than
    MIN_HISTORY only a lost VALID is a regression."""
    records = [run.known for run in earlier]
    enough = len(records) >= MIN_HISTORY
    fewest = _fewest(after.known, *records)
    differences = []
    for figure, before, now in _pairs(records[-1], after.known):
        width = None
        values = _values(records, figure)
        if enough and len(values) >= MIN_HISTORY and min(values) > 0:
            spread = noise.spread([values])
            assert spread is not None
            width = noise.half_width(spread, len(values))
            before = statistics.geometric_mean(values)
        differences.append(_difference(figure, before, now, width, fewest))
    if enough:
        source = f"between the {len(records)} earlier runs of this plan; 'before' is their mean"
    else:
        source = f"unknown: fewer than {MIN_HISTORY} earlier runs; 'before' is the latest of them"
    return _comparison(earlier, after, differences, source, tolerance)


def why_not_comparable(runs: Sequence[Record], keys: Sequence[str]) -> str:
    """What of ``keys`` differs from the first run; empty if the runs are comparable."""
    first, *others = map(sameness.of_record, runs)
    found = [str(each) for other in others for each in sameness.mismatches(first, other, keys)]
    return ", ".join(dict.fromkeys(found))


def _comparison(
    before: Sequence[Run],
    after: Run,
    differences: Sequence[Difference],
    source: str,
    tolerance: float,
) -> Comparison:
    last = before[-1]
    regressions = [
        f"{d.figure} is {abs(d.change):.1%} worse"
        for d in differences
        if d.word == "worse" and abs(d.change) > tolerance
    ]
    if last.word == "VALID" and after.word != "VALID" and not after.is_cancelled:
        why = "; ".join(each.removesuffix(".") for each in after.why())
        regressions.insert(0, f"it was VALID and is {after.word}: {why}")
    was, now = (sameness.of_record(run.known) for run in (last, after))
    same_benchmark = was["plan.benchmark"] == now["plan.benchmark"]
    return Comparison(
        before=tuple(run.name for run in before),
        after=after.name,
        verdict_before=last.word,
        verdict_after=after.word,
        changed=tuple(map(str, sameness.mismatches(was, now))),
        differences=tuple(differences),
        noise=source,
        regressions=tuple(regressions) if same_benchmark else (),
        same_benchmark=same_benchmark,
        without_test=tuple(run.name for run in (last, after) if run.phase is None),
    )


def _groups(before: Record, after: Record, repeats: Sequence[Record]) -> list[list[Record]]:
    """Groups of at least two runs of one plan. Runs of one plan that are compared are in no
    group: an outlier would widen the interval that it is judged by."""
    same = before.plan_digest == after.plan_digest
    groups: dict[str, list[Record]] = {}
    for record in [*repeats, *([] if same else [before, after])]:
        groups.setdefault(record.plan_digest, []).append(record)
    within = [each_test(record) for record in (before, after)]
    return [group for group in (*groups.values(), *within) if len(group) > 1]


def _widths(wanted: Sequence[Figure], groups: Sequence[Sequence[Record]]) -> Widths:
    """As for single tests: the tests of a run share its engines and node, so their mean moves
    between runs by more than their number suggests."""
    widths = {}
    for figure in wanted:
        spread = noise.spread([_values(group, figure) for group in groups])
        if spread is not None and spread.freedom >= MIN_FREEDOM:
            widths[figure.name] = noise.half_width(spread, 1)
    return widths


def _pairs(before: Record, after: Record) -> Iterator[tuple[Figure, float, float]]:
    """The figures that both runs have. A figure of 0 has no ratio."""
    for figure in figures(before):
        one, other = _mean(before, figure), _mean(after, figure)
        if one and other is not None:
            yield figure, one, other


def _mean(record: Record, figure: Figure) -> float | None:
    """Of the run's performance tests."""
    values = [value for one in each_test(record) if (value := figure.read(one)) is not None]
    several = len(values) > 1 and min(values) > 0
    return statistics.geometric_mean(values) if several else figure.read(record)


def _values(records: Sequence[Record], figure: Figure) -> list[float]:
    return [value for record in records if (value := _mean(record, figure)) is not None]


def _fewest(*records: Record) -> int:
    """Samples in the smallest performance test of all runs; 0 if unknown."""
    tests = (test for record in records for test in each_test(record))
    return min(num_samples(test) or 0 for test in tests)


def _difference(
    figure: Figure, before: float, after: float, width: float | None, fewest: int
) -> Difference:
    low = high = None
    word: Word = "noise not known"
    ratio = noise.log(after) - noise.log(before)
    if fewest < figure.least:
        word = "too few samples"
    elif width is not None and max(abs(ratio), WIDEST) < width:
        word = "too noisy"
    elif width is not None:
        low, high = math.expm1(ratio - width), math.expm1(ratio + width)
        word = "within noise"
        if figure.better and (low > 0 or high < 0):
            word = "better" if (low > 0) == (figure.better > 0) else "worse"
    return Difference(
        figure=figure.name,
        unit=figure.unit,
        before=before,
        after=after,
        change=after / before - 1,
        low=low,
        high=high,
        word=word,
    )
