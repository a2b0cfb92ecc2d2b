"""Markdown for reports, and its conversion to HTML."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from markdown_it import MarkdownIt


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> str:
    """A table; empty without rows. Columns in ``right``, by index, are right-aligned."""
    if not rows:
        return ""
    cells = [head, ["---:" if place in right else "---" for place in range(len(head))]]
    cells += ([inline(text).replace("|", "\\|") for text in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {inline(line)}" for line in lines)


def inline(text: str) -> str:
    """Any text as part of one line."""
    return " ".join(text.split())


def or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


# The keyboard can scroll what has the focus.
SCROLLING = '<div class="wide" tabindex="0" role="group" aria-label="table">'


def to_html(text: str) -> str:
    """Convert Markdown. Tags in the text are escaped, a wide table scrolls in a box of its own,
    cells with long text have the class ``text``, and a head without any name is left out."""
    html: str = _PARSER.render(text)
    html = re.sub(r"<thead>\s*<tr>\s*(?:<th[^>]*></th>\s*)+</tr>\s*</thead>\s*", "", html)
    html = re.sub(r"<td>(?=[^\n]{40})", '<td class="text">', html)
    html = html.replace("<table>", f"{SCROLLING}<table>")
    return html.replace("</table>", "</table></div>")


_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")
