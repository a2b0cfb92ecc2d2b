"""Energy and clocks of a run's nodes, by their own meters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sut.report.markdown import table
from sut.report.page import Figure, Section
from sut.report.phases import percent
from sut.results.record import PhaseRecord
from sut.results.telemetry import GpuTelemetry, NodeTelemetry
from sut.units import number, quantity

NOT_POWER = (
    "By the nodes' own meters (NVML, RAPL), which see their GPUs, packages and memory and not the "
    "rest of a node. This is not MLPerf Power."
)


def section(phases: Sequence[PhaseRecord], figures: tuple[Figure, ...]) -> Section:
    measured = [phase for phase in phases if phase.telemetry]
    if not measured:
        text = "The nodes offered this run no meter: neither NVML, nor RAPL, nor CPU clocks."
        return Section(title="Energy and clocks", text=text)
    parts = [part for phase in measured for part in _phase(phase)]
    return Section(
        title="Energy and clocks", text="\n\n".join([*parts, NOT_POWER]), figures=figures
    )


def per_token(phase: PhaseRecord) -> str | None:
    """What the meters counted over all output tokens, with their kinds; None where they are not
    the same kinds on every node, or are on some nodes only."""
    tokens = sum(work.output_tokens for work in phase.nodes)
    names = {name for work in phase.nodes for name in work.node.split("+")}
    kinds = {tuple(node.energy_j) for node in phase.telemetry}
    if tokens == 0 or kinds == {()} or len(kinds) != 1 or len(phase.telemetry) < len(names):
        return None
    joules = sum(sum(node.energy_j.values()) for node in phase.telemetry)
    return f"{quantity(joules / tokens, 'J')} a token ({', '.join(*kinds)})"


def _phase(phase: PhaseRecord) -> Iterator[str]:
    head = ("meter", "energy", "mean", "most", "clock, mean", "least", "temperature", "slowed by")
    rows = [row for node in phase.telemetry for row in _rows(node, phase.duration_s)]
    yield f"{phase.name.capitalize()}:"
    yield table(head, rows)
    if each := per_token(phase):
        yield f"{each}, of the output."


def _rows(node: NodeTelemetry, duration_s: float | None) -> Iterator[tuple[str, ...]]:
    if node.cpu_energy_j is not None or node.cpu_clock_mhz_mean is not None:
        yield (
            f"{node.node} CPU",
            quantity(node.cpu_energy_j, "J"),
            _power(node.cpu_energy_j, duration_s),
            "-",
            quantity(node.cpu_clock_mhz_mean, "MHz"),
            quantity(node.cpu_clock_mhz_min, "MHz"),
            "-",
            "-",
        )
    if node.dram_energy_j is not None:
        power = _power(node.dram_energy_j, duration_s)
        yield (f"{node.node} DRAM", quantity(node.dram_energy_j, "J"), power, *["-"] * 5)
    for gpu in node.gpus:
        yield (
            f"{node.node} GPU {gpu.index}",
            quantity(gpu.energy_j, "J"),
            quantity(gpu.power_w_mean, "W"),
            quantity(gpu.power_w_max, "W"),
            quantity(gpu.sm_clock_mhz_mean, "MHz"),
            quantity(gpu.sm_clock_mhz_min, "MHz"),
            "-" if gpu.temperature_c_max is None else f"{number(gpu.temperature_c_max)} °C",
            _slowed_by(gpu),
        )


def _power(energy_j: float | None, duration_s: float | None) -> str:
    return quantity(energy_j / duration_s, "W") if energy_j and duration_s else "-"


def _slowed_by(gpu: GpuTelemetry) -> str:
    causes = (("power", gpu.slowed_by_power), ("heat", gpu.slowed_by_heat))
    slowed = [f"{cause} {percent(share)}" for cause, share in causes if share]
    known = any(share is not None for _, share in causes)
    return ", ".join(slowed) or ("nothing" if known else "-")
