"""``python -m sut.history``: list the runs of a site, or write them as an HTML page."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from sut import layout, messages
from sut.cluster import liveness
from sut.cluster.liveness import Word
from sut.command import Parser, at_least, command, print_json
from sut.errors import EXIT_VALID, InputError
from sut.history.index import Index
from sut.history.listing import to_csv, to_table
from sut.history.row import Row
from sut.history.sorting import KEYS, NEWEST, ordered
from sut.launch.options import add, run_root, shared
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import load_plan
from sut.results.messaging import UNVERIFIED
from sut.results.progress import Reader
from sut.results.record import Status
from sut.rundir import RunDir, write_atomic
from sut.units import number

LIMIT = 30
PAGE = "index.html"
IN_ALL_RUNS = ("benchmark", "scenario", "verdict", "preset")  # filters by one value
FILTERS = (*IN_ALL_RUNS, "node", "plan", "since")
# A run's verdict, or its status where it has none; then what sut/history/row.py finds wrong.
_OF_RECORDS = ("VALID", "INVALID", *map(str.upper, get_args(Status)))
VERDICTS = (*_OF_RECORDS, "UNFINISHED", "UNREADABLE", "ALTERED")
SCENARIOS = (*map(str, Scenario), "preflight")
PRESETS = tuple(map(str, Preset))
_AGO = re.compile(r"(\d+)([hdw])")
_STATES: dict[liveness.State, Word] = {
    "submitting": "starting",
    "pending": "pending",
    "active": "running",
    "ended": "lost",
    "unknown": "unknown",
}
_HOURS = {"h": 1, "d": 24, "w": 24 * 7}


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    with Index(run_root(options)) as index:
        limit = 0 if options.html else options.limit
        rows = _rows(index, options, limit)
        if options.json:
            print_json(rows)
        elif options.csv:
            print(to_csv(rows), end="")
        elif options.html:
            print(_write_page(index.root, rows))
        else:
            print(listing(index.root, rows, index.count(), index.without_record))
        if not rows and (nothing := nothing_matches(index, options)):
            messages.report(nothing)
    return EXIT_VALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.history",
        description="List runs, newest first.",
        epilog="exit codes: 0 listed, 2 bad input",
        examples=("--scenario server --verdict valid --since 7d", "--html"),
        parents=[shared("site", "root")],
    )
    parser.add_argument("--benchmark", metavar="NAME", help="runs of this benchmark")
    parser.add_argument(
        "--scenario", type=_in_any_case(SCENARIOS), choices=SCENARIOS, help="runs of this scenario"
    )
    parser.add_argument(
        "--verdict",
        type=_in_any_case(VERDICTS),
        choices=VERDICTS,
        help="runs with this verdict, or without one",
    )
    parser.add_argument(
        "--preset", type=_in_any_case(PRESETS), choices=PRESETS, help="runs of this preset"
    )
    parser.add_argument("--node", metavar="NAME", help="runs with a replica on this node")
    parser.add_argument(
        "--plan", metavar="DIGEST", help="runs of one plan; the first digits are enough"
    )
    parser.add_argument(
        "--since", metavar="TIME", help="e.g. 2026-11-24, 2026-11-24T02:00 (UTC), 12h, 7d or 4w"
    )
    parser.add_argument(
        "--limit",
        type=at_least(0),
        default=LIMIT,
        metavar="N",
        help="at most N runs; 0 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--sort",
        choices=KEYS,
        default=NEWEST,
        metavar="KEY",
        help="order: numbers best first, words from A to Z. KEY: %(choices)s (default: %(default)s,"
        " newest first)",
    )
    parser.add_argument("--reverse", action="store_true", help="reverse the order")
    form = parser.add_mutually_exclusive_group()
    add(form, "json")
    form.add_argument("--csv", action="store_true", help="print CSV with every column")
    form.add_argument(
        "--html", action="store_true", help=f"write {PAGE} with all matching runs into the run root"
    )
    return parser.parse(argv)


def _in_any_case(choices: Sequence[str]) -> Callable[[str], str]:
    """A parser that ignores case. An unknown word stays as it is, for argparse's message."""
    return lambda text: next((each for each in choices if each.lower() == text.lower()), text)


def _rows(index: Index, options: argparse.Namespace, limit: int) -> Sequence[Row]:
    if options.sort == NEWEST and not options.reverse:
        return index.rows(*condition(options), limit=limit)
    rows = index.rows(*condition(options))
    rows = ordered(rows, options.sort, reverse=options.reverse)
    return rows[:limit] if limit else rows


def condition(options: argparse.Namespace) -> tuple[str, list[Any]]:
    """An SQL condition and its values. Raises InputError for an invalid time."""
    wanted = {
        "benchmark = ?": options.benchmark,
        "scenario = ?": options.scenario,
        "verdict = ?": options.verdict,
        "preset = ?": options.preset,
        "instr(',' || nodes || ',', ?)": options.node and f",{options.node},",
        "plan_digest LIKE ?": options.plan and f"{options.plan}%",
        "created_utc >= ?": options.since and since(options.since, datetime.now(UTC)),
    }
    given = {term: value for term, value in wanted.items() if value}
    return " AND ".join(given), list(given.values())


def since(text: str, now: datetime) -> str:
    """``2026-11-24``, ``2026-11-24T02:00`` or ``7d`` as a time in a record's form."""
    if ago := _AGO.fullmatch(text):
        then = now - timedelta(hours=int(ago[1]) * _HOURS[ago[2]])
    else:
        try:
            then = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(
                f"--since {text}: not a date, time or age",
                hint="for example: --since 2026-11-24, --since 2026-11-24T02:00 or --since 7d",
            ) from None
        then = then.replace(tzinfo=UTC) if then.tzinfo is None else then.astimezone(UTC)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def listing(
    root: Path, rows: Sequence[Row], num_indexed: int, without_record: Sequence[str]
) -> str:
    """The rows as a table for a terminal, and how many runs it leaves out."""
    notes = [f"{number(len(rows))} of {number(num_indexed)} runs with a record. {UNVERIFIED}"]
    if without_record:
        newest = [f"{name} ({_state(RunDir(root / name))})" for name in without_record[-3:]]
        some = ", ".join(newest) + ", ..." * (len(without_record) > 3)
        notes.append(f"{number(len(without_record))} without a record: {some}")
    width = layout.terminal_width()
    notes = [line for note in notes for line in layout.wrap(note, width)]
    return "\n".join([*([to_table(rows, width)] if rows else []), *notes])


def _state(run: RunDir) -> str:
    """What a run without a record is doing."""
    try:
        found = liveness.of_run(run, load_plan(run.plan))
    except InputError:
        return "its plan is not readable"
    word = _STATES[found.state]
    if word == "running" and all(line.phase is None for line in Reader(run.progress).read()):
        word = "starting"  # no test of it has begun
    return f"{word}: {found.why}" if found.why else word


def nothing_matches(index: Index, options: argparse.Namespace) -> str:
    """Why the list is empty: no run is there, or which filters left none, and which values the runs
    have."""
    filters = [f"--{name} {value}" for name in FILTERS if (value := getattr(options, name))]
    if not filters:
        hint = "hint: start a run: python -m sut.submit; runs elsewhere: --root DIR or SUT_RUN_ROOT"
        return "" if index.without_record else f"no runs ({index.root})\n{hint}"
    lines = [f"no run matches {' '.join(filters)}"]
    for name in IN_ALL_RUNS:
        if getattr(options, name):
            values = sorted({str(getattr(row, name)) for row in index.rows()} - {""})
            lines.append(f"{name} of the runs here: {', '.join(values) or 'none'}")
    return "\n".join(lines)


def _write_page(root: Path, rows: Sequence[Row]) -> Path:
    from sut.history import page  # here: lists need no Markdown

    try:
        write_atomic(root / PAGE, page.render(root, rows, datetime.now(UTC)))
    except OSError as error:
        raise InputError(
            f"cannot write the page ({root / PAGE}): {error.strerror}",
            hint="make the run root writable, or redirect another form: python -m sut.history "
            "--csv >runs.csv",
        ) from None
    return root / PAGE


if __name__ == "__main__":
    sys.exit(main())
