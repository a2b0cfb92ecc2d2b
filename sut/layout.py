"""Text that fits a terminal. Words are never broken, so that a path or a command can be copied: one
that is longer than a line has a line of its own.

A ``width`` of None is that of a pipe or a file: each line is as long as it needs to be.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

INDENT = " " * 4
PAGE = 100  # columns of a page of prose in a pipe or a file
LEAST_COLUMN = 24  # characters of a wrapped column; narrower ones are hard to read
_NO_BREAK = "\xa0"
# A figure stays on the line of its unit.
_UNITS = r"ms|s|min|h|%|[KMG]i?B|W|J|queries|samples|tokens|(?:queries|samples|tokens)/s"
_BEFORE_UNIT = re.compile(rf"(?<=\d) (?=(?:{_UNITS})(?![\w/]))")


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that ``stream``, by default standard output, writes to; None if it
    is none."""
    stream = stream or sys.stdout
    if not stream.isatty():
        return None
    columns = 0
    if not os.environ.get("COLUMNS"):
        # shutil asks standard output, which may be a pipe where standard error is a terminal.
        with contextlib.suppress(OSError, ValueError):
            columns = os.get_terminal_size(stream.fileno()).columns
    return columns or shutil.get_terminal_size().columns


def wrap(text: str, width: int | None, first: str = "", rest: str = "") -> list[str]:
    """A paragraph as lines: ``first`` is put before the first one, ``rest`` before each other."""
    if width is None or len(first) + len(text) <= width:
        return [f"{first}{text}".rstrip().replace(_NO_BREAK, " ")]
    lines = textwrap.wrap(
        _BEFORE_UNIT.sub(_NO_BREAK, text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def together(text: str) -> str:
    """A text that ``wrap`` leaves on one line, e.g. a name and its figure."""
    return text.replace(" ", _NO_BREAK)


def fold(lines: Iterable[str], width: int | None, rest: str) -> list[str]:
    """Lines that are indented already; ``rest`` is put before each part of a line but its first."""
    return [part for line in lines for part in wrap(line, width, rest=rest)]


def columns(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Iterable[int],
    width: int | None,
    gap: str = "  ",
) -> list[str]:
    """A table; an empty ``head`` leaves out the header row. Columns in ``right``, by index, are
    right-aligned.

    Where it is wider than ``width``, the last column is wrapped, if it is one of text with enough
    room. Else each row is a paragraph: its first cell, and below it the others with their names.
    """
    right = frozenset(right)
    cells = [*([tuple(head)] if head else []), *map(tuple, rows)]
    count = max(map(len, cells), default=0)
    widths = [max(len(row[place]) for row in cells) for place in range(count)]
    lines = [gap.join(_padded(row, widths, right)) for row in cells]
    if width is None or all(len(line.rstrip()) <= width for line in lines):
        return [line.rstrip() for line in lines]
    room = width - sum(widths[:-1]) - len(gap) * (count - 1)
    if count - 1 not in right and room >= LEAST_COLUMN:
        begun = [gap.join([*_padded(row[:-1], widths, right), ""]) for row in cells]
        hang = " " * (width - room)
        pairs = zip(begun, cells, strict=True)
        return [line for begin, row in pairs for line in wrap(row[-1], width, begin, hang)]
    return [line for row in rows for line in _paragraph(head, row, right, width)]


def indented(lines: Iterable[str], by: int) -> list[str]:
    return [f"{' ' * by}{line}" for line in lines]


def less(width: int | None, by: int) -> int | None:
    """What is left of a width beside ``by`` columns."""
    return None if width is None else max(width - by, 1)


def _padded(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> list[str]:
    return [
        cell.rjust(widths[place]) if place in right else cell.ljust(widths[place])
        for place, cell in enumerate(row)
    ]


def _paragraph(
    head: Sequence[str], row: Sequence[str], right: frozenset[int], width: int
) -> list[str]:
    """The last column has lines of its own if it is one of text. A first cell of text needs no
    name."""
    names = list(head) or [""] * len(row)
    first, *others = (
        (name, cell, place in right)
        for place, (name, cell) in enumerate(zip(names, row, strict=True))
    )
    title = f"{first[0]} {first[1]}" if first[2] else first[1]
    prose = ""
    if others and not others[-1][2]:
        name, text, _ = others.pop()
        prose = f"{name}: {text}" if name and text else text
    facts = [f"{name} {cell}".strip() for name, cell, _ in others if cell.strip()]
    room = width - len(INDENT) - len(",")
    facts = [together(fact) if len(fact) <= room else fact for fact in facts]
    lines = wrap(title.strip(), width)
    for text in filter(None, (", ".join(facts), prose)):
        lines += wrap(text, width, INDENT, INDENT)
    return lines
