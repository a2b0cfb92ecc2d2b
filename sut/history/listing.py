"""A list of runs as text: for a terminal of any width, for a pipe, as CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence

import msgspec

from sut import layout
from sut.history.row import Row
from sut.plan.hostlist import compact
from sut.units import exact, number

LATENCIES = ("TTFT p99, ms", "TPOT p99, ms")
HEAD = (
    *("verdict", "benchmark", "scenario", "preset", "nodes", "target_qps"),
    *("tokens/s", *LATENCIES, "run", "why"),
)
NARROW = ("verdict", "nodes", "target_qps", "tokens/s", *LATENCIES)
COST = "cost/M tokens"
_FILES = frozenset({"mtime_ns", "size"})  # of the index, not of a run


def to_table(rows: Sequence[Row], width: int | None) -> str:
    """A line a run. Where this is wider than a terminal of ``width`` columns, its figures, and
    below them its folder and why it is not VALID; where these are too wide as well, each figure
    with its name. None: however wide."""
    costs = (COST,) if has_cost(rows) else ()
    heads = (*HEAD[:9], *costs, *HEAD[9:])
    last = 9 + len(costs)
    wide = layout.columns(heads, [_cells(row, costs) for row in rows], range(5, last), None)
    if width is None or max(map(len, wide)) <= width:
        return "\n".join(wide)
    short = [_figures(row, costs) for row in rows]
    head, *lines = layout.columns((*NARROW, *costs), short, range(2, 6 + len(costs)), None)
    if max(map(len, (head, *lines))) > width:
        head, lines = "", [_named((*NARROW, *costs), figures, width) for figures in short]
    listed = ([line, *_below(row, width)] for line, row in zip(lines, rows, strict=True))
    return "\n".join([head, *itertools.chain(*listed)] if head else itertools.chain(*listed))


def _named(names: Sequence[str], figures: Sequence[str], width: int) -> str:
    """The verdict, and below it the other figures, as many on a line as fit."""
    verdict, *others = figures
    pairs = zip(names[1:], others, strict=True)
    text = ", ".join(layout.together(f"{name} {figure}") for name, figure in pairs)
    return "\n".join([verdict, *layout.wrap(text, width, layout.INDENT, layout.INDENT)])


def to_csv(rows: Sequence[Row]) -> str:
    """A header and a line a run, without rounding. Unknown values are empty."""
    names = [field.name for field in msgspec.structs.fields(Row) if field.name not in _FILES]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue()


def has_cost(rows: Sequence[Row]) -> bool:
    """Whether the price of some run is known."""
    return any(row.cost_per_million_tokens is not None for row in rows)


def _cells(row: Row, costs: Sequence[str]) -> tuple[str, ...]:
    verdict, nodes, *numbers = _figures(row, costs)
    where = (row.benchmark, row.scenario, row.preset)
    return (verdict, *where, nodes, *numbers, row.path, _why(row))


def _figures(row: Row, costs: Sequence[str]) -> tuple[str, ...]:
    numbers = [row.tokens_per_s, row.ttft_p99_ms, row.tpot_p99_ms]
    numbers += [row.cost_per_million_tokens] * len(costs)
    nodes = compact(row.nodes.split(","))
    return (row.headline, nodes, exact(row.target_qps), *map(number, numbers))


def _below(row: Row, width: int) -> list[str]:
    """Words are never broken: a rule's name and a folder can be copied."""
    lines = [f"{layout.INDENT}{row.path}"]
    if why := _why(row):
        lines += layout.wrap(f"why: {why}", width, layout.INDENT, layout.INDENT + " " * 5)
    return lines


def _why(row: Row) -> str:
    return row.why if row.verdict != "VALID" else ""
