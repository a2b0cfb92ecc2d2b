"""``python -m sut.compare A B``: what differs, and which figures changed by more than noise.

A single run is compared with the earlier runs of its plan, as after a nightly run.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sut import layout, messages
from sut.command import Parser, at_least, command, print_json
from sut.errors import EXIT_INVALID, EXIT_VALID, InputError, quoted
from sut.history.comparison import Comparison, Difference, Run, Word, compare, compare_with_history
from sut.history.figures import LEAST_SAMPLES, LEAST_SAMPLES_P99
from sut.history.index import Index
from sut.launch.options import add_runs, find_runs, run_root, shared
from sut.results import record
from sut.results.messaging import UNVERIFIED
from sut.results.record import Record
from sut.rundir import RunDir
from sut.units import number, quantity

MAX_EARLIER = 20  # earlier runs that a run is compared with
TOLERANCE = 0.02
_COMPLETED = "verdict IN ('VALID', 'INVALID')"
NO_INTERVAL: dict[Word, str] = {
    "too few samples": f"p99 needs {LEAST_SAMPLES_P99} samples in each test, other figures "
    f"{LEAST_SAMPLES}",
    "too noisy": "runs of one plan differ so much that a figure can double unnoticed",
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    root = run_root(options)
    folders = find_runs(options.run, options)
    counts = Counter(each.root for each in folders)
    if same := [folder for folder, count in counts.items() if count > 1]:
        raise InputError(
            f"the same run twice: {same[0].name}",
            hint="compare it with earlier runs of its plan: "
            f"python -m sut.compare {quoted(same[0])}",
        )
    comparisons = _compare(folders, root, options.tolerance / 100)
    if options.json:
        print_json(comparisons)
    elif comparisons:
        width = layout.terminal_width()
        texts = [text(each, width) for each in comparisons]
        print("\n\n".join([*texts, "\n".join(layout.wrap(UNVERIFIED, width))]))
    words = {each.word for one in comparisons for each in one.differences}
    again = f"python -m sut.submit --again {quoted(folders[0])}"
    if not comparisons or words & {"noise not known", "too noisy"}:
        messages.report(f"hint: repeat the runs to measure noise: {again}")
    elif "too few samples" in words:
        messages.report("hint: compare longer runs: python -m sut.submit --preset smoke")
    regressed = any(comparison.regressions for comparison in comparisons)
    return EXIT_INVALID if regressed and options.fail_on_regression else EXIT_VALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.compare",
        description="Compare runs with the first one, or a single run with the earlier runs of "
        "its plan. For each figure, report whether it changed by more than noise.",
        epilog="exit codes: 0 compared, 1 a regression (with --fail-on-regression), 2 bad input",
        examples=("RUN RUN", "latest --fail-on-regression"),
        parents=[shared("site", "root", "json")],
    )
    add_runs(parser, nargs="+")
    parser.add_argument(
        "--fail-on-regression", action="store_true", help="exit with 1 if there is a regression"
    )
    parser.add_argument(
        "--tolerance",
        type=at_least(0, float),
        default=TOLERANCE * 100,
        metavar="PERCENT",
        help="do not report smaller changes as regressions (default: %(default)g)",
    )
    return parser.parse(argv)


def _compare(folders: Sequence[RunDir], root: Path, tolerance: float) -> list[Comparison]:
    loaded = [Run(name=each.root.name, record=record.read(each.root)) for each in folders]
    first, *others = loaded
    if others:
        repeats = _repeats(folders, loaded, root)
        return [compare(first, other, repeats, tolerance) for other in others]
    created = first.known.created_utc
    earlier = _of_plan(folders[0], first.known, root, "created_utc < ?", created)
    if not earlier:
        print(f"{first.name} has no earlier run of its plan to compare with", file=sys.stderr)
        if like := _like(folders[0], first.known, root):
            count = f"{len(like)} earlier runs" if len(like) > 1 else "an earlier run"
            messages.report(
                f"hint: {count} of its benchmark and scenario with another setting, the last: "
                f"python -m sut.compare {quoted(like[-1])} {quoted(first.name)}"
            )
        return []
    return [compare_with_history(first, earlier, tolerance)]


def _repeats(folders: Sequence[RunDir], loaded: Sequence[Run], root: Path) -> list[Record]:
    """Other runs of the same plans."""
    compared = {run.known.run_id for run in loaded}
    found = {
        each.known.run_id: each.known
        for folder, run in zip(folders, loaded, strict=True)
        for each in _of_plan(folder, run.known, root)
    }
    return [each for run_id, each in found.items() if run_id not in compared]


def _of_plan(
    folder: RunDir, of: Record, root: Path, condition: str = "true", *values: str
) -> list[Run]:
    """The last completed runs of a record's plan, oldest first. They are under ``root``, or beside
    a run that is not there."""
    root = _root_of(folder, root)
    where = f"plan_digest = ? AND {_COMPLETED} AND {condition}"
    with Index(root) as index:
        rows = index.rows(where, [of.plan_digest, *values], limit=MAX_EARLIER)
    found = []
    for row in reversed(rows):
        with contextlib.suppress(InputError):  # of another schema version
            found.append(Run(name=row.path, record=record.read(root / row.path)))
    return found


def _like(folder: RunDir, of: Record, root: Path) -> list[str]:
    """The last completed runs before it of the same benchmark and scenario, oldest first."""
    where = f"benchmark = ? AND scenario = ? AND created_utc < ? AND {_COMPLETED}"
    values = (of.plan.benchmark, of.plan.scenario, of.created_utc)
    with Index(_root_of(folder, root)) as index:
        return [row.path for row in reversed(index.rows(where, values, limit=MAX_EARLIER))]


def _root_of(folder: RunDir, root: Path) -> Path:
    return root if folder.root.is_relative_to(root.resolve()) else folder.root.parent


def text(comparison: Comparison, width: int | None = None) -> str:
    before = comparison.before[-1]
    if len(comparison.before) > 1:
        before = f"{len(comparison.before)} runs, the last {before}"
    lines = [
        f"before  {comparison.verdict_before:<8} {before}",
        f"after   {comparison.verdict_after:<8} {comparison.after}",
    ]
    lines += [f"{'changed' if not i else '':<8}{c}" for i, c in enumerate(comparison.changed)]
    if comparison.differences:
        head = ("", "before", "after", "change", "99% interval", "")
        rows = [_cells(each) for each in comparison.differences]
        table = layout.columns(head, rows, range(1, 5), width)
        noise = f"noise: {comparison.noise}"
    else:
        table, noise = [], "no figures to compare: the runs have none in common"
        if none := comparison.without_test:
            noise = f"no figures to compare: no finished performance test in {', '.join(none)}"
    lines = layout.fold(lines, width, layout.INDENT * 2)
    lines += [""] * bool(table) + table + ["", *layout.wrap(noise, width)]
    words = {each.word for each in comparison.differences}
    notes = (f"{word}: {note}" for word, note in NO_INTERVAL.items() if word in words)
    lines += [line for note in notes for line in layout.wrap(note, width, rest=layout.INDENT)]
    if not comparison.same_benchmark:
        note = "the runs are of different benchmarks: no change is a regression"
        lines += layout.wrap(note, width, rest=layout.INDENT)
    for regression in comparison.regressions:
        lines += layout.wrap(f"REGRESSION: {regression}", width, rest=layout.INDENT)
    return "\n".join(lines)


def _cells(difference: Difference) -> tuple[str, ...]:
    interval = "-"
    if difference.low is not None and difference.high is not None:
        interval = f"{_percent(difference.low)} to {_percent(difference.high)}"
    return (
        difference.figure,
        number(difference.before),
        quantity(difference.after, difference.unit),
        _percent(difference.change),
        interval,
        difference.word,
    )


def _percent(part: float) -> str:
    return f"{part:+.1%}" if abs(part) < 1 else f"{part:+,.0%}"


if __name__ == "__main__":
    sys.exit(main())
