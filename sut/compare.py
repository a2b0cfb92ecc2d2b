"""``python -m sut.compare A B``: what is different, and whether it is more than noise.

With one run: against the earlier runs of its plan, which is what a nightly run asks.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.cluster import runs
from sut.command import command
from sut.errors import EXIT_INVALID, EXIT_VALID, InputError
from sut.history.difference import Comparison, Difference, Run, compare, compare_with_history
from sut.history.index import Index
from sut.launch.options import run_root, shared
from sut.results import record, sample_log
from sut.results.messaging import UNVERIFIED
from sut.results.record import Record
from sut.rundir import RunDir
from sut.units import number, quantity

HISTORY = 20  # earlier runs that are looked at
TOLERANCE = 0.02


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    comparisons = _compare(options)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(comparisons)).decode())
    else:
        print("\n\n".join([*map(text, comparisons), *[UNVERIFIED] * bool(comparisons)]))
    regressed = any(comparison.regressions for comparison in comparisons)
    return EXIT_INVALID if regressed and options.fail_on_regression else EXIT_VALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.compare",
        description="Compare runs with the first one; a single run with the earlier runs of its "
        "plan. Says of each figure whether it changed by more than noise.",
        epilog="exit codes: 0; 1 a regression, with --fail-on-regression; 2 bad input",
        parents=[shared("site", "root", "json")],
    )
    parser.add_argument("run", nargs="+", metavar="RUN", help="folder, name or Slurm job of a run")
    parser.add_argument(
        "--fail-on-regression", action="store_true", help="exit with 1 where there is one"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE * 100,
        metavar="PERCENT",
        help="worse by less is no regression (default: %(default)g)",
    )
    return parser.parse_args(argv)


def _compare(options: argparse.Namespace) -> list[Comparison]:
    root = run_root(options)
    folders = [runs.find(name, root) for name in options.run]
    loaded = [_load(folder) for folder in folders]
    tolerance = options.tolerance / 100
    if len(loaded) > 1:
        first, *others = loaded
        repeats = _repeats(folders, loaded, root)
        return [compare(first, other, repeats, tolerance) for other in others]
    (run,) = loaded
    earlier = _of_plan(folders[0], run.record, root, "created_utc < ?", run.record.created_utc)
    if not earlier:
        print(f"{run.name} has no earlier run of its plan to be compared with", file=sys.stderr)
        return []
    return [compare_with_history(run, earlier, tolerance)]


def _load(folder: RunDir) -> Run:
    return Run(
        name=folder.root.name,
        record=record.read(folder.root),
        samples=sample_log.read(folder.samples("performance")),
    )


def _repeats(folders: Sequence[RunDir], loaded: Sequence[Run], root: Path) -> list[Record]:
    """Other runs of the same plans."""
    compared = {run.record.run_id for run in loaded}
    found = {
        each.record.run_id: each.record
        for folder, run in zip(folders, loaded, strict=True)
        for each in _of_plan(folder, run.record, root)
    }
    return [each for run_id, each in found.items() if run_id not in compared]


def _of_plan(
    folder: RunDir, of: Record, root: Path, condition: str = "true", *values: str
) -> list[Run]:
    """The last completed runs of a record's plan, oldest first: those under the run root, or for
    a run that is elsewhere those beside it."""
    root = root if folder.root.is_relative_to(root.resolve()) else folder.root.parent
    where = f"plan_digest = ? AND verdict IN ('VALID', 'INVALID') AND {condition}"
    with Index(root) as index:
        rows = index.rows(where, [of.plan_digest, *values], limit=HISTORY)
    found = []
    for row in reversed(rows):
        with contextlib.suppress(InputError):  # of another version of this program
            found.append(Run(name=row.path, record=record.read(root / row.path)))
    return found


def text(comparison: Comparison) -> str:
    """A comparison for reading."""
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
        cells = [head, *map(_cells, comparison.differences)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["", *(_table_line(row, widths) for row in cells)]
        lines += ["", f"noise: {comparison.noise}"]
    else:
        lines += ["", "the runs have no figure in common"]
    lines += [f"REGRESSION: {regression}" for regression in comparison.regressions]
    return "\n".join(lines)


def _table_line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures, word = row
    cells = [name.ljust(widths[0])]
    cells += [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=False)]
    return "  ".join([*cells, word]).rstrip()


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
