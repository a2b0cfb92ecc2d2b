"""Markdown as reports use it, and the same as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markdown_it import MarkdownIt


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; nothing when there are no rows."""
    if not rows:
        return ""
    cells = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {inline(line)}" for line in lines)


def inline(text: str) -> str:
    """Any text as part of one line."""
    return " ".join(text.split())


def or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def to_html(text: str) -> str:
    """HTML of Markdown. Tags in the text are shown, not obeyed; a wide table scrolls by itself,
    and cells of prose are of class ``text``."""
    html: str = _PARSER.render(text)
    html = re.sub(r"<td>(?=[^\n]{40})", '<td class="text">', html)
    html = html.replace("<table>", '<div class="wide"><table>')
    return html.replace("</table>", "</table></div>")


_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")


def _cell(text: str) -> str:
    return inline(text).replace("|", "\\|")
