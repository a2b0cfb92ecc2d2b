"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.table import Table
from rich.text import Text


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    right: Collection[int] = (),
) -> Table:
    """A table without lines, of plain text. Columns in ``right``, by index, are right-aligned.
    Empty ``headers`` leave out the header row."""
    made = Table(
        title=Text(title, "bold") if title else None,
        title_justify="left",
        header_style="dim",
        show_header=bool(headers),
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for place in range(len(headers) or max(map(len, rows), default=0)):
        name = Text(headers[place] if headers else "")
        made.add_column(name, justify="right" if place in right else "left")
    for row in rows:
        made.add_row(*map(Text, row))
    return made
