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
    gap: int = 2,
    no_wrap: bool = False,
) -> Table:
    """A table without lines, of plain text. Columns in ``right``, by index, are right-aligned.
    Empty ``headers`` leave out the header row."""
    made = Table(
        title=Text(title, "bold") if title else None,
        title_justify="left",
        header_style="dim",
        show_header=bool(headers),
        box=None,
        padding=(0, gap, 0, 0),
        pad_edge=False,
    )
    for place in range(len(headers) or max(map(len, rows), default=0)):
        name = Text(headers[place] if headers else "")
        made.add_column(name, justify="right" if place in right else "left", no_wrap=no_wrap)
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def to_text(made: Table) -> str:
    """The table as plain text, one line a row, however wide. For output that may be piped.

    Padded here: rich's console takes 1 ms a row, and a history has 10,000.
    """
    columns = []
    for column in made.columns:
        texts = [str(column.header)] * made.show_header + list(map(str, column.cells))
        width = max(map(len, texts), default=0)
        pad = str.rjust if column.justify == "right" else str.ljust
        columns.append([pad(text, width) for text in texts])
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join([str(made.title)] * bool(made.title) + lines)
