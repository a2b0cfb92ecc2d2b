"""``python -m sut.list benchmarks|campaigns|sites|scenarios|keys``: the names one can choose."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sut import layout
from sut.command import Parser, command, print_json
from sut.errors import EXIT_VALID, InputError
from sut.launch import default_site
from sut.launch.options import DEFAULT_BENCHMARK, add
from sut.plan import catalog

MAX_CELL = 120  # characters, but in the last column; --json has all of them
HEADS = {
    "benchmarks": ("benchmark", "model", "scenarios", "official", "description"),
    "campaigns": ("campaign", "runs", "description"),
    "sites": ("site", "device", "nodes", "runs are in", "description"),
    "scenarios": ("scenario", "LoadGen's", "target_qps", "TTFT limit", "TPOT limit", "presets"),
    "keys": ("key", "type", "default", "value", "meaning"),
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    rows = [row for row in _rows(options) if _matches(row, options.words)]
    rows.sort(key=lambda row: not _is_named(row, options.words))
    if options.json:
        print_json(rows)
        return EXIT_VALID
    if not rows:
        raise InputError(
            f"no {options.what} with {' and '.join(options.words)}",
            hint=f"list all: python -m sut.list {options.what}",
        )
    head = HEADS[options.what]
    cells = [_shown(_cells(row)[: len(head)]) for row in rows]
    width = layout.terminal_width()
    print("\n".join(layout.columns(head, cells, _right(options.what), width)))
    return EXIT_VALID


def _rows(options: argparse.Namespace) -> Iterable[msgspec.Struct]:
    match options.what:
        case "benchmarks":
            return catalog.benchmarks()
        case "campaigns":
            return catalog.campaigns()
        case "sites":
            return catalog.sites()
        case "scenarios":
            return catalog.scenarios(options.config or DEFAULT_BENCHMARK)
        case _:
            return catalog.key_rows(options.config or DEFAULT_BENCHMARK, _site(options))


def _site(options: argparse.Namespace) -> str:
    """The keys of a site are the same on a cluster that has none yet."""
    try:
        return options.site or default_site.default()
    except InputError:
        return "local"


def _matches(row: msgspec.Struct, words: Sequence[str]) -> bool:
    shown = (row.key, row.meaning) if isinstance(row, catalog.KeyRow) else _cells(row)
    text = " ".join(shown).lower()
    return all(word.lower() in text for word in words)


def _is_named(row: msgspec.Struct, words: Sequence[str]) -> bool:
    """Whether the words are in a key itself, not only in its meaning. True for other rows."""
    if not isinstance(row, catalog.KeyRow):
        return True
    return all(word.lower() in row.key.lower() for word in words)


def _cells(row: msgspec.Struct) -> list[str]:
    values: Iterable[Any] = msgspec.structs.astuple(row)
    return [", ".join(value) if isinstance(value, tuple) else str(value) for value in values]


def _shown(cells: Sequence[str]) -> list[str]:
    *between, last = cells
    short = (c if len(c) <= MAX_CELL else f"{c[: MAX_CELL - 3]}..." for c in between)
    return [*short, last]


def _right(what: str) -> tuple[int, ...]:
    return (2, 3, 4) if what == "scenarios" else (1,) if what == "campaigns" else ()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.list",
        description="List the benchmarks, campaigns, sites and scenarios that there are, or every "
        "key that --set takes.",
        epilog="exit codes: 0 listed, 2 nothing found",
        examples=(
            "benchmarks",
            "keys qps",
            "scenarios --config llama3.1-8b",
            "keys slurm --site jw",
        ),
    )
    parser.add_argument("what", choices=HEADS, nargs="?", help="what to list")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only rows with these words")
    add(
        parser, "config", help=f"benchmark of the scenarios and keys (default: {DEFAULT_BENCHMARK})"
    )
    add(parser, "site", help="site of the keys (default: as in sut.submit)")
    add(parser, "json")
    options = parser.parse(argv)
    if options.what is None:
        raise InputError(
            f"what to list is missing: give one of {', '.join(HEADS)}",
            hint="python -m sut.list benchmarks",
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
