"""The curves of a sweep: latencies with their limits, and throughput with goodput, against the
load."""

from __future__ import annotations

from sut.report import svg, sweep
from sut.report.page import Figure
from sut.report.svg import LIMIT, SERIES, figure
from sut.report.sweep import AtLoad
from sut.results.record import Record

LOAD = "target_qps, queries/s"
WIDE = 20  # largest over smallest latency, from which the scale is logarithmic


def draw(record: Record) -> tuple[Figure, ...]:
    """None of a run without a sweep, or with one load."""
    found = sweep.loads(record)
    if len(found) < 2:
        return ()
    drawn = [_latency(found, name) for name in ("TTFT", "TPOT")]
    return tuple(each for each in (*drawn, _rates(found)) if each is not None)


def _latency(found: list[AtLoad], name: str) -> Figure | None:
    points = _points(found, f"{name} p99")
    if len(points) < 2:
        return None
    plot = svg.axes(LOAD, f"{name} p99, ms")
    limit = found[0].limits_ms().get(name)
    svg.line(plot, points, SERIES[0], f"{name} p99")
    plot.plot(*zip(*points, strict=True), "o", color=SERIES[0], markersize=4)
    if limit is not None:
        plot.axhline(limit, color=LIMIT, linestyle="--", label="limit")
    values = [value for _, value in points]
    if min(values) > 0 and max(values) > WIDE * min(values):
        plot.set_yscale("log")
        plot.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")  # not the log scale's
    else:
        plot.set_ylim(bottom=0)
    return figure(f"{name} against load", f"The 99th percentile of {name} at each load.", plot)


def _rates(found: list[AtLoad]) -> Figure | None:
    tokens, goodput = _points(found, "throughput"), _points(found, "goodput")
    if len(tokens) < 2:
        return None
    plot = svg.axes(LOAD, "tokens/s within the limits, and in all")
    per_sample = {each.target_qps: _tokens_a_sample(each) for each in found}
    within = [(qps, rate * per_sample[qps]) for qps, rate in goodput if per_sample[qps]]
    svg.line(plot, tokens, SERIES[0], "all tokens")
    if within:
        svg.line(plot, within, SERIES[1], "goodput: tokens of samples within both limits")
    plot.set_ylim(bottom=0)
    caption = "Tokens a second at each load: of all samples, and of those within both limits."
    return figure("Throughput against load", caption, plot)


def _points(found: list[AtLoad], name: str) -> list[tuple[float, float]]:
    with_it = [(each.target_qps, each.figures().get(name)) for each in found]
    return [(qps, figure.mean) for qps, figure in with_it if figure is not None]


def _tokens_a_sample(each: AtLoad) -> float:
    counts = [phase.dispatcher for phase in each.phases if phase.dispatcher]
    completed = sum(count.completed for count in counts)
    return sum(count.output_tokens for count in counts) / completed if completed else 0.0
