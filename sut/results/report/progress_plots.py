"""The plots of what a run told of a phase once a second."""

from __future__ import annotations

from sut.results.page import Figure
from sut.results.report import svg
from sut.results.report.subject import Subject
from sut.results.report.svg import SERIES, figure


def draw(subject: Subject) -> list[Figure]:
    """Every plot that there are lines of progress for."""
    figures = [_queue(subject), _kv_cache(subject)]
    return [each for each in figures if each is not None]


def _queue(subject: Subject) -> Figure | None:
    lines = [line for line in subject.evidence.lines if line.elapsed_s > 0]
    if len(lines) < 2:
        return None
    when = [line.elapsed_s for line in lines]
    plot = svg.axes("s from the start", "samples")
    plot.plot(when, [line.queued for line in lines], color=SERIES[0], label="dispatcher's queue")
    waiting = [sum(replica.waiting for replica in line.replicas) for line in lines]
    running = [sum(replica.running for replica in line.replicas) for line in lines]
    plot.plot(when, waiting, color=SERIES[1], label="waiting in engines")
    plot.plot(when, running, color=SERIES[2], label="running in engines")
    plot.set_ylim(bottom=0)
    return figure(
        "Queues",
        "Where samples were, once a second: in the dispatcher's queue until a replica has room, "
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
        plot.plot(*zip(*points, strict=True), color=SERIES[n], label=subject.name(index))
    plot.set_ylim(bottom=0)
    return figure("KV cache", "Share of its KV cache that each replica used, once a second.", plot)
