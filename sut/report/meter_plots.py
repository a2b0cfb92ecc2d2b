"""The plots of what the nodes' meters said during a phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sut.machine.meters import Reading
from sut.report import svg
from sut.report.page import Figure
from sut.report.svg import SERIES, figure


def draw(
    readings: Mapping[str, Sequence[Reading]], start_s: float, duration_s: float
) -> list[Figure]:
    """Power and clocks of every node's meters, from ``start_s`` in unix time."""
    power: dict[str, list[tuple[float, float]]] = {}
    clock: dict[str, list[tuple[float, float]]] = {}
    for node, of_node in readings.items():
        before = None
        for reading in of_node:
            at = reading.unix_s - start_s
            if before and before.cpu_energy_j is not None and reading.cpu_energy_j is not None:
                passed_s = reading.unix_s - before.unix_s
                watts = (reading.cpu_energy_j - before.cpu_energy_j) / passed_s if passed_s else 0.0
                _keep(power, f"{node} CPU", at, watts, duration_s)
            before = reading
            _keep(clock, f"{node} CPU", at, reading.cpu_clock_mhz, duration_s)
            for gpu in reading.gpus:
                _keep(power, f"{node} GPU {gpu.index}", at, gpu.power_w, duration_s)
                _keep(clock, f"{node} GPU {gpu.index} SM", at, gpu.sm_clock_mhz, duration_s)
    figures = [
        _lines("Power", "W", power, "Power by the nodes' own meters. Not MLPerf Power."),
        _lines("Clocks", "MHz", clock, "Clocks by the nodes' own meters."),
    ]
    return [each for each in figures if each is not None]


def _keep(
    into: dict[str, list[tuple[float, float]]],
    name: str,
    at_s: float,
    value: float | None,
    duration_s: float,
) -> None:
    if value is not None and 0 <= at_s <= duration_s:
        into.setdefault(name, []).append((at_s, value))


def _lines(
    title: str, unit: str, series: Mapping[str, list[tuple[float, float]]], caption: str
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
