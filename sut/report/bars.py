"""Stacked bars as handwritten SVG: the login node, which writes these pages, has no matplotlib."""

from __future__ import annotations

import html
from collections.abc import Sequence

import msgspec

from sut.report.page import Figure, Key
from sut.units import quantity

WIDTH, ROW, BAR = 360, 34, 12
NUM_COLORS = 8


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    label: str
    begin: float = 0.0
    parts: tuple[tuple[str, float], ...]  # names and lengths


def figure(
    title: str, caption: str, unit: str, rows: Sequence[Bar], first: Sequence[str] = ()
) -> Figure | None:
    """One bar a row, all to one scale. Parts of one name have one colour, in the order of the names
    in ``first`` and then of the rows. None without lengths."""
    longest = max((row.begin + _length(row) for row in rows), default=0.0)
    if longest <= 0:
        return None
    used = [name for row in rows for name, _ in row.parts]
    names = list(dict.fromkeys([*(name for name in first if name in used), *used]))
    color = {name: f"var(--series-{n % NUM_COLORS})" for n, name in enumerate(names)}
    drawn = []
    for n, row in enumerate(rows):
        top, x = n * ROW, WIDTH * row.begin / longest
        label = html.escape(f"{row.label}: {quantity(_length(row), unit)}")
        drawn.append(f'<text x="0" y="{top + 13}" style="fill: var(--text)">{label}</text>')
        for name, length in row.parts:
            wide = WIDTH * length / longest
            drawn.append(
                f'<rect x="{x:.1f}" y="{top + 18}" width="{wide:.1f}" height="{BAR}" '
                f'style="fill: {color[name]}"/>'
            )
            x += wide
    described = html.escape(f"{title}. {caption}")
    svg = (
        f'<svg role="img" aria-label="{described}" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {WIDTH} {ROW * len(rows)}" style="font-size: 11px">\n'
        + "\n".join(drawn)
        + "\n</svg>"
    )
    keys = tuple(Key(label=name, color=color[name], mark="solid") for name in names)
    return Figure(title=title, caption=caption, svg=svg, keys=keys if len(keys) > 1 else ())


def _length(row: Bar) -> float:
    return sum(length for _, length in row.parts)
