"""The plots of a run: of each phase's samples and progress, and of the nodes' meters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sut.machine.meters import Reading
from sut.plan.plan import Mode
from sut.report import sample_plots, svg, sweep_plots
from sut.report.evidence import Evidence, Subject, subject_of
from sut.report.page import Figure
from sut.report.svg import SERIES, figure
from sut.results.record import Record

Points = list[tuple[float, float]]


def draw(record: Record, evidence: Mapping[str, Evidence]) -> dict[str, tuple[Figure, ...]]:
    """The figures of each timed phase by its name, and of the meters by ``telemetry``."""
    phases = {phase.name: phase for phase in record.phases}
    drawn: dict[str, tuple[Figure, ...]] = {}
    for name, of_phase in evidence.items():
        phase = phases.get(name)
        if phase is not None and phase.test.mode != Mode.PERFORMANCE:
            continue
        subject = subject_of(record, name, of_phase)
        drawn[name] = (*sample_plots.draw(subject), *of_progress(subject))
        if phase is not None and phase.start_unix_s is not None and phase.duration_s is not None:
            meters = of_meters(of_phase.readings, phase.start_unix_s, phase.duration_s)
            drawn["telemetry"] = tuple(meters)
    if of_sweep := sweep_plots.draw(record):
        drawn["sweep"] = of_sweep
    return drawn


def of_progress(subject: Subject) -> list[Figure]:
    return [each for each in (_queues(subject), _kv_cache(subject)) if each is not None]


def _queues(subject: Subject) -> Figure | None:
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
        "Samples by place, once a second: in the dispatcher's queue until a replica has room, "
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
    return figure("KV cache", "Share of its KV cache that each replica uses, once a second.", plot)


def of_meters(
    readings: Mapping[str, Sequence[Reading]], start_s: float, duration_s: float
) -> list[Figure]:
    """Power and clocks of every node's meters, from ``start_s`` in unix time."""
    power: dict[str, Points] = {}
    clock: dict[str, Points] = {}

    def keep(into: dict[str, Points], name: str, at_s: float, value: float | None) -> None:
        if value is not None and 0 <= at_s <= duration_s:
            into.setdefault(name, []).append((at_s, value))

    for node, of_node in readings.items():
        before = None
        for reading in of_node:
            at_s = reading.unix_s - start_s
            if before and before.cpu_energy_j is not None and reading.cpu_energy_j is not None:
                passed_s = reading.unix_s - before.unix_s
                watts = (reading.cpu_energy_j - before.cpu_energy_j) / passed_s if passed_s else 0.0
                keep(power, f"{node} CPU", at_s, watts)
            before = reading
            keep(clock, f"{node} CPU", at_s, reading.cpu_clock_mhz)
            for gpu in reading.gpus:
                keep(power, f"{node} GPU {gpu.index}", at_s, gpu.power_w)
                keep(clock, f"{node} GPU {gpu.index} SM", at_s, gpu.sm_clock_mhz)
    figures = [
        _meter_lines("Power", "W", power, "Power by the nodes' own meters. Not MLPerf Power."),
        _meter_lines("Clocks", "MHz", clock, "Clocks by the nodes' own meters."),
    ]
    return [each for each in figures if each is not None]


def _meter_lines(
    title: str, unit: str, series: Mapping[str, Points], caption: str
) -> Figure | None:
    drawn = {name: points for name, points in series.items() if len(points) > 1}
    if not drawn:
        return None
    plot = svg.axes("s from the start", unit)
    for n, (name, points) in enumerate(list(drawn.items())[: len(SERIES)]):
        svg.line(plot, points, SERIES[n], name)
    plot.set_ylim(bottom=0)
    hidden = len(drawn) - len(SERIES)
    return figure(title, caption + (f" {hidden} more are not drawn." if hidden > 0 else ""), plot)
