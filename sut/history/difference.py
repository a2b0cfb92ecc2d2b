"""The difference between runs, and what of it is noise. Pure: records and samples come in."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from sut.errors import InputError
from sut.history import noise
from sut.history.figures import Figure, figures
from sut.results.record import Record
from sut.results.sample_log import SampleLog
from sut.values import Struct

MIN_FREEDOM = 3  # degrees, from which repeated runs tell more than the samples of one
MIN_HISTORY = 3  # earlier runs that a regression is told against
UNTOLD = ("not_official_because",)  # parts of a plan that follow from others
Word = Literal["better", "worse", "within noise", "noise not known"]
Widths = Mapping[str, float]  # by figure: how far noise moves the logarithm of a ratio


class Run(Struct, frozen=True, kw_only=True):
    """A run to compare; ``samples`` of its performance test, where they were kept."""

    name: str
    record: Record
    samples: SampleLog | None = None


class Difference(Struct, frozen=True, kw_only=True):
    """One figure before and after. ``change`` is relative: 0.1 is a tenth more. ``low`` to
    ``high`` is where the true change lies, with 99% confidence; None where that is not known."""

    figure: str
    unit: str
    before: float
    after: float
    change: float
    low: float | None
    high: float | None
    word: Word


class Comparison(Struct, frozen=True, kw_only=True):
    """A run beside what was before it: one run, or several of one plan. ``noise`` says where the
    intervals come from; ``regressions`` is what got worse beyond noise and tolerance."""

    before: tuple[str, ...]
    after: str
    verdict_before: str
    verdict_after: str
    changed: tuple[str, ...]
    differences: tuple[Difference, ...]
    noise: str
    regressions: tuple[str, ...]


def compare(before: Run, after: Run, repeats: Sequence[Record], tolerance: float) -> Comparison:
    """Two runs. ``repeats`` are other runs of either's plan; ``tolerance`` is the part of a
    figure by which it may get worse before that is a regression.

    Raises InputError for runs of different scenarios.
    """
    check_comparable(before, after)
    known = figures(before.record)
    groups = _groups(before.record, after.record, repeats)
    if sum(len(group) - 1 for group in groups) >= MIN_FREEDOM:
        widths = _between_runs(known, groups)
        source = f"between {sum(map(len, groups))} runs of the same plans"
    elif before.samples is not None and after.samples is not None:
        widths = _within_runs(known, before.samples, after.samples)
        source = "inside the two runs, from their samples; repeat them to know it between runs, too"
    else:
        widths = {}
        missing = [run.name for run in (before, after) if run.samples is None]
        source = f"not known: no samples of {' and '.join(missing)}, and too few repeated runs"
    differences = [
        _difference(figure, one, other, widths.get(figure.name))
        for figure, one, other in _pairs(known, before.record, after.record)
    ]
    return _comparison([before], after, differences, source, tolerance)


def compare_with_history(after: Run, earlier: Sequence[Run], tolerance: float) -> Comparison:
    """A run beside the earlier runs of its plan, at least one, oldest first. While there are
    fewer than MIN_HISTORY only a verdict that is lost is a regression."""
    last = earlier[-1].record
    differences = []
    for figure, before, now in _pairs(figures(last), last, after.record):
        values = _values([run.record for run in earlier], figure)
        width = None
        enough = len(values) >= MIN_HISTORY and min(values) > 0
        if enough and (spread := noise.spread([values])) is not None:
            width = noise.half_width(spread, len(values), 1)
            before = statistics.geometric_mean(values)
        differences.append(_difference(figure, before, now, width))
    if len(earlier) >= MIN_HISTORY:
        source = f"between the {len(earlier)} earlier runs of this plan, whose mean is 'before'"
    else:
        source = f"not known before {MIN_HISTORY} earlier runs of this plan; 'before' is the last"
    return _comparison(earlier, after, differences, source, tolerance)


def check_comparable(before: Run, after: Run) -> None:
    """Raise InputError for runs that measure different things."""
    one, other = before.record.plan.scenario, after.record.plan.scenario
    if one is not other:
        raise InputError(
            f"{before.name} is of scenario {one} and {after.name} of {other}: they measure "
            "different things. python -m sut.history --scenario NAME lists the runs of one"
        )


def changes(before: Record, after: Record) -> list[str]:
    """What else than the figures differs: the plan, the software, the machine."""
    one, other = _conditions(before), _conditions(after)
    return [
        f"{key}: {one.get(key, 'none')} -> {other.get(key, 'none')}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]


def _comparison(
    before: Sequence[Run],
    after: Run,
    differences: Sequence[Difference],
    source: str,
    tolerance: float,
) -> Comparison:
    last = before[-1].record
    regressions = [
        f"{d.figure} is {abs(d.change):.1%} worse"
        for d in differences
        if d.word == "worse" and abs(d.change) > tolerance
    ]
    if last.verdict == "VALID" and after.record.verdict != "VALID":
        lost = f"it was VALID and is {after.record.word}: {' '.join(_why(after.record))}"
        regressions.insert(0, lost)
    return Comparison(
        before=tuple(run.name for run in before),
        after=after.name,
        verdict_before=last.word,
        verdict_after=after.record.word,
        changed=tuple(changes(last, after.record)),
        differences=tuple(differences),
        noise=source,
        regressions=tuple(regressions),
    )


def _groups(before: Record, after: Record, repeats: Sequence[Record]) -> list[list[Record]]:
    """Groups of two and more runs of one plan. A run that is compared is in the group of its plan
    only where the other one is not: an outlier must not hide itself."""
    same = before.plan_digest == after.plan_digest
    groups: dict[str, list[Record]] = {}
    for record in [*repeats, *([] if same else [before, after])]:
        groups.setdefault(record.plan_digest, []).append(record)
    return [group for group in groups.values() if len(group) > 1]


def _between_runs(known: Sequence[Figure], groups: Sequence[Sequence[Record]]) -> Widths:
    widths = {}
    for figure in known:
        spread = noise.spread([_values(group, figure) for group in groups])
        if spread is not None and spread.freedom >= MIN_FREEDOM:
            widths[figure.name] = noise.half_width(spread, 1, 1)
    return widths


def _within_runs(known: Sequence[Figure], before: SampleLog, after: SampleLog) -> Widths:
    wanted = {figure.statistic: figure.name for figure in known if figure.statistic is not None}
    widths = noise.half_widths(before, after, list(wanted))
    return {wanted[statistic]: width for statistic, width in widths.items()}


def _pairs(
    known: Sequence[Figure], before: Record, after: Record
) -> Iterator[tuple[Figure, float, float]]:
    """The figures that both runs have. One that is nothing can't be compared as a ratio."""
    for figure in known:
        one, other = figure.read(before), figure.read(after)
        if one and other is not None:
            yield figure, one, other


def _values(records: Sequence[Record], figure: Figure) -> list[float]:
    return [value for record in records if (value := figure.read(record)) is not None]


def _difference(figure: Figure, before: float, after: float, width: float | None) -> Difference:
    low = high = None
    word: Word = "noise not known"
    if width is not None:
        ratio = noise.log(after) - noise.log(before)
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


def _why(record: Record) -> list[str]:
    if record.failure is not None:
        return [f"{record.failure.code}: {record.failure.message.partition(chr(10))[0]}"]
    return [reason.text for phase in record.phases for reason in phase.verdict.reasons]


def _conditions(record: Record) -> dict[str, str]:
    """Everything that was given to a run, by dotted keys."""
    environment = record.environment
    plan = {k: v for k, v in msgspec.to_builtins(record.plan).items() if k not in UNTOLD}
    given = {
        "plan": plan,
        "packages": environment.packages,
        "host": environment.hostname,
        "cpu": environment.cpu_model,
        "gpus": ", ".join(gpu.name for gpu in environment.gpus),
        "gpu_driver": environment.gpu_driver,
        "container": environment.container,
        "kernel": environment.kernel,
        "python": environment.python,
        "loadgen": environment.loadgen,
        "source": environment.git and environment.git.commit + "+" * environment.git.dirty,
        "model_sha256": record.hashes.model,
        "data_sha256": record.hashes.data,
    }
    return {k: str(v) for k, v in _flat(given, "") if v not in (None, "")}


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value
