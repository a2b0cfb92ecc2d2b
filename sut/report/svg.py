"""matplotlib figures as small SVG with the colours and the font of the page around it.

Figures are drawn in placeholder colours, which become CSS variables in the SVG: one figure serves
light mode, dark mode and print.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from typing import Any

from sut.inputs.cache import cache_dir
from sut.report.page import Figure, Key

# matplotlib writes its list of fonts to a folder, and warns if it cannot.
os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))

import matplotlib
import numpy as np
from matplotlib import figure as drawing
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

Array = Any  # of numpy

WIDTH_IN, HEIGHT_IN = 5.0, 2.8  # about the width of a phone
TEXT, GRID, LIMIT = "#010101", "#020202", "#030303"
MAX_POINTS = 200  # of a line
SERIES = tuple(f"#1000{i:02d}" for i in range(8))

_VARIABLES = {TEXT: "var(--text)", GRID: "var(--grid)", LIMIT: "var(--limit)"} | {
    color: f"var(--series-{i})" for i, color in enumerate(SERIES)
}
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mlperf-sut",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": TEXT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.01,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
}


def axes(x_label: str, y_label: str) -> Axes:
    """The one plot of a new figure. The y label is above the plot, which saves width on a phone."""
    with matplotlib.rc_context(_STYLE):
        # As much margin as the labels need.
        canvas = drawing.Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        FigureCanvasSVG(canvas)
        plot: Axes = canvas.add_subplot()
        plot.set_xlabel(x_label)
        plot.set_title(y_label, loc="left", fontsize=9.5)
        for axis in (plot.xaxis, plot.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,g}")
    return plot


def line(plot: Axes, points: Sequence[tuple[float, float]], color: str, label: str) -> None:
    """A line through ``points``, or through the means of neighbours if there are many points."""
    size = -(-len(points) // MAX_POINTS)
    groups = (np.array(points[i : i + size]) for i in range(0, len(points), size))
    x, y = np.array([group.mean(axis=0) for group in groups]).T
    plot.plot(x, y, color=color, label=label)


def dots(plot: Axes, x: Array, y: Array, color: str, label: str) -> None:
    """Points as one path of dots, which takes a tenth of the text of markers."""
    where = np.repeat(np.column_stack([x, y]), 2, axis=0)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(x))
    path = Path(where, codes)
    path.should_simplify = False
    plot.add_patch(
        PathPatch(path, fill=False, edgecolor=color, capstyle="round", lw=2.4, alpha=0.55)
    )
    plot.update_datalim(where)
    plot.autoscale_view()
    plot.plot([], [], "o", color=color, markersize=3, label=label)


def figure(title: str, caption: str, plot: Axes) -> Figure:
    svg = _text(plot, f"{title}. {caption}")
    return Figure(title=title, caption=caption, svg=svg, keys=_legend(plot))


def _legend(plot: Axes) -> tuple[Key, ...]:
    """The legend's entries; none for a single line."""
    lines, labels = plot.get_legend_handles_labels()
    keys = [
        Key(label=label, color=_VARIABLES[str(line.get_color())], mark=_mark(line))
        for line, label in zip(lines, labels, strict=True)
        if isinstance(line, Line2D)
    ]
    return tuple(keys) if len(keys) > 1 else ()


def _mark(line: Line2D) -> str:
    if line.get_marker() == "o":
        return "dot"
    return {"--": "dashed", ":": "dotted"}.get(str(line.get_linestyle()), "solid")


def _text(plot: Axes, description: str) -> str:
    """The figure of ``plot`` as an ``<svg>`` element with ``description`` for screen readers."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        canvas = plot.get_figure(root=True)
        assert canvas is not None
        canvas.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    # Ids that nothing refers to would be duplicates in a page of several figures.
    text = re.sub(r' id="(?![mp][0-9a-f]{8,}")[^"]*"', "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    text = re.sub(r"\s*\n\s*", "\n", text)
    label = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
