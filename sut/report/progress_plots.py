"""The plots of what a run told of a phase once a second."""

from __future__ import annotations

from sut.report import svg
from sut.report.page import Figure
from sut.report.subject import Subject
from sut.report.svg import SERIES, figure


def draw(subject: Subject) -> list[Figure]:
    """Every plot that there are lines of progress for."""
    figures = [_queue(subject), _kv_cache(subject)]
    return [each for each in figures if each is not None]


def _queue(subject: Subject) -> Figure | None:
    lines = [line for line in subject.evidence.lines if line.elapsed_s > 0]
    if len(lines) < 2:
        return None
    plot = svg.axes("s from the start", "samples")
    queued = [(line.elapsed_s, line.queued) for line in lines]
    waiting = [(line.elapsed_s, sum(r.waiting for r in line.replicas)) for line in lines]
    running = [(line.elapsed_s, sum(r.running for r in line.replicas)) for line in lines]
    svg.line(plot, queued, SERIES[0], "dispatcher's queue")
    svg.line(plot, waiting, SERIES[1], "waiting in engines")
    svg.line(plot, running, SERIES[2], "running in engines")
    plot.set_ylim(bottom=0)
    return figure(
        "Queues",
        "Where samples were, by the second: in the dispatcher's queue until a replica has room, "
        "then waiting or running in an engine.",
        plot,
    )


def _kv_cache(subject: Subject) -> Figure | None:
    lines = [line for line in subject.evidence.lines if line.elapsed_s > 0 and line.replicas]
    if len(lines) < 2:
        return None
    plot = svg.axes("s from the start", "KV cache in use, %")
    indices = sorted({replica.index for line in lines for replica in line.replicas})
    for n, index in enumerate(indices[: len(SERIES)]):
        points = [
            (line.elapsed_s, 100 * replica.kv_cache_usage)
            for line in lines
            for replica in line.replicas
            if replica.index == index
        ]
        svg.line(plot, points, SERIES[n], subject.name(index))
    plot.set_ylim(bottom=0)
    return figure("KV cache", "Share of its KV cache that each replica used, by the second.", plot)
