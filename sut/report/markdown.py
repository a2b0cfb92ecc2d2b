"""Markdown for reports, and its conversion to HTML."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Sequence

from markdown_it import MarkdownIt

NOTHING = "-"  # a cell of an unknown figure
_NUMBER = re.compile(r"[+-]?[\d,.]+%?( ± ([\d,.]+|\?))?")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> str:
    """A table; empty without rows. Columns of numbers are right-aligned, and those in ``right``, by
    index."""
    if not rows:
        return ""
    right = {*right, *(place for place in range(len(head)) if _are_numbers(rows, place))}
    first, *others = ([inline(text).replace("|", "\\|") for text in row] for row in (head, *rows))
    rule = ["---:" if place in right else "---" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (first, rule, *others))


def _are_numbers(rows: Sequence[Sequence[str]], place: int) -> bool:
    cells = {row[place] for row in rows} - {NOTHING}
    return bool(cells) and all(map(_NUMBER.fullmatch, cells))


def filled(
    head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A table's head and rows without the columns in which no row has anything."""
    kept = [place for place in range(len(head)) if any(row[place] != NOTHING for row in rows)]
    return tuple(head[at] for at in kept), [tuple(row[at] for at in kept) for row in rows]


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_BLOCK.sub(BACKSLASHED, inline(line))}" for line in lines)


class Markup(str):
    """Markdown that :func:`inline` leaves as it is: no part of it comes from a log or a record."""


def inline(text: str) -> str:
    """Any text as part of one line. Only its ``code`` is Markdown."""
    line = " ".join(text.split())
    if isinstance(text, Markup):
        return line
    parts = _CODE.split(line)
    special = _SPECIAL_AND_LINKS if "](" in line or "][" in line or "]:" in line else _SPECIAL
    parts[::2] = [special.sub(BACKSLASHED, part) for part in parts[::2]]
    return "".join(parts)


def code(text: str) -> str:
    """Any text as code in a line."""
    return Markup(f"`{' '.join(text.split()).replace('`', chr(39))}`")


def block(text: str) -> str:
    """Any text as a block of code."""
    return "\n".join(f"    {line}" for line in text.splitlines())


# The characters that have a meaning in Markdown where they are. Each is written after a backslash.
BACKSLASHED = r"\\\g<0>"
_SPECIAL = re.compile(r"[\\`*]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|~(?=~)|(?<!\w)_|_(?!\w)")
_SPECIAL_AND_LINKS = re.compile(rf"{_SPECIAL.pattern}|[][]")
_BLOCK = re.compile(r"^[#>+=-]")  # at the start of a line
_CODE = re.compile(r"((?<!`)`[^`]+`(?!`))")


def or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


MANY = 6  # columns, from which a table does not fit a phone; with long text one less
# The keyboard can scroll what has the focus.
SCROLLING = '<div class="wide" tabindex="0" role="group" aria-label="table">'


def to_html(text: str) -> str:
    """Convert Markdown. Tags, images and links to other sites are text, a wide table scrolls in a
    box of its own, cells with long text have the class ``text``, and a head without any name is
    left out. The cells of a table with MANY columns have their names, for a narrow screen."""
    html: str = _PARSER.render(text)
    html = re.sub(r"<thead>\s*<tr>\s*(?:<th[^>]*></th>\s*)+</tr>\s*</thead>\s*", "", html)
    html = re.sub(r"<td>(?=[^\n]{40})", '<td class="text">', html)
    html = re.sub(r"<table>.*?</table>", _with_names, html, flags=re.DOTALL)
    html = re.sub(r"(?=<table[ >])", SCROLLING, html)
    return html.replace("</table>", "</table></div>")


def _with_names(found: re.Match[str]) -> str:
    names = [re.sub(r"<[^>]*>", "", name) for name in re.findall(r"<th[^>]*>(.*?)</th>", found[0])]
    if len(names) < MANY - ('class="text"' in found[0]):
        return found[0]
    place = itertools.count()

    def named(cell: re.Match[str]) -> str:
        name = names[next(place) % len(names)].replace('"', "&quot;")
        return f'<td data-name="{name}"'

    return re.sub(r"<td(?=[ >])", named, found[0]).replace("<table", '<table class="many"', 1)


_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_ELSEWHERE = re.compile(r"\s*([a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
_PARSER.validateLink = lambda url: not _ELSEWHERE.match(url)  # type: ignore[method-assign]
