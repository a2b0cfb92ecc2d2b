"""The nodes of a run: their preflight checks, their share of the work, their energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sut.report.markdown import Markup, bullets, code, filled, inline, percent, table
from sut.report.page import Figure, Section
from sut.results.phase_record import PhaseRecord
from sut.results.record import PreflightCheck, Record
from sut.results.telemetry import GpuTelemetry, NodeTelemetry
from sut.results.work import NodeWork, Quantiles
from sut.units import number, quantity

BY_THE_DISPATCHER = (
    "Times are the dispatcher's, counted from when LoadGen issued a sample. LoadGen's own times, "
    "which decide the verdict, count from when the sample was scheduled."
)
NOT_POWER = (
    "Measured by the nodes' own meters (NVML, RAPL), which cover GPUs, CPU packages and memory but "
    "not the rest of a node. This is not MLPerf Power."
)


def preflight(record: Record) -> Section | None:
    """The checks before any model was loaded: a column for each node."""
    if not record.preflight:
        return None
    names = dict.fromkeys(check.name for node in record.preflight for check in node.checks)
    rows = [
        (
            code(name),
            *(
                Markup(
                    ", ".join(_check_cell(check) for check in node.checks if check.name == name)
                    or "-"
                )
                for node in record.preflight
            ),
        )
        for name in names
    ]
    failed = [
        f"{node.node}, {check.name}: {check.text}"
        for node in record.preflight
        for check in node.checks
        if not check.ok
    ]
    nodes = (node.node for node in record.preflight)
    parts = [bullets(failed), table(("check", *nodes), rows)]
    return Section(title="Preflight", text="\n\n".join(part for part in parts if part))


def _check_cell(check: PreflightCheck) -> str:
    text = "ok" if check.measured is None else quantity(check.measured, check.unit)
    shown = inline("not ok" if text == "ok" and not check.ok else text)
    return shown if check.ok else f"**{shown}**"


def work(phases: Sequence[PhaseRecord]) -> Section | None:
    """What each node did, in the performance phase if there is one."""
    known = [phase for phase in phases if phase.nodes]
    phase = next((p for p in known if p.accuracy is None), known[0] if known else None)
    if phase is None:
        return None
    rows = [work_cells(node, phase.telemetry) for node in phase.nodes]
    text = (
        f"Figures of the {phase.name} phase. tokens/s is the node's output tokens divided by the "
        "time from the phase's first issued to its last completed sample; this time is the same "
        "for all nodes. "
        f"{BY_THE_DISPATCHER}"
    )
    return Section(title="Nodes", text=f"{table(*filled(WORK_COLUMNS, rows))}\n\n{text}")


WORK_COLUMNS = (
    *("node", "replicas", "samples", "tokens/s"),
    *("TTFT p50, ms", "TTFT p99, ms", "TPOT p50, ms", "TPOT p99, ms"),
    *("KV cache, max", "GPU memory, max"),
)


def work_cells(node: NodeWork, telemetry: Sequence[NodeTelemetry]) -> tuple[str, ...]:
    """A row below ``WORK_COLUMNS``."""
    return (
        node.node,
        str(node.replicas),
        number(node.samples),
        number(node.tokens_per_s),
        *_p50_p99(node.ttft_ms),
        *_p50_p99(node.tpot_ms),
        percent(node.kv_cache_usage_max),
        _gpu_memory(node, telemetry),
    )


def _p50_p99(quantiles: Quantiles | None) -> tuple[str, str]:
    return ("-", "-") if quantiles is None else (number(quantiles.p50), number(quantiles.p99))


def _gpu_memory(node: NodeWork, telemetry: Sequence[NodeTelemetry]) -> str:
    used = [
        quantity(gpu.memory_used_mib_max / 1024, "GiB")
        for meters in telemetry
        if meters.node in node.node.split("+")
        for gpu in meters.gpus
        if gpu.memory_used_mib_max is not None
    ]
    return ", ".join(used) or "-"


def energy(phases: Sequence[PhaseRecord], figures: tuple[Figure, ...]) -> Section:
    parts = [part for phase in phases if phase.telemetry for part in _energy_of(phase)]
    text = "\n\n".join([*parts, NOT_POWER])
    if not parts:
        text = "The nodes have no meter that this run can read: no NVML, RAPL or CPU clocks."
    return Section(title="Energy and clocks", text=text, figures=figures)


def energy_per_token(phase: PhaseRecord) -> str | None:
    """Energy over all output tokens, with the kinds of meter. None unless every node has the same
    kinds of meter."""
    tokens = sum(node.output_tokens for node in phase.nodes)
    names = {name for node in phase.nodes for name in node.node.split("+")}
    kinds = {tuple(meters.energy_j) for meters in phase.telemetry}
    if tokens == 0 or kinds == {()} or len(kinds) != 1 or len(phase.telemetry) < len(names):
        return None
    joules = sum(sum(meters.energy_j.values()) for meters in phase.telemetry)
    return f"{quantity(joules / tokens, 'J')} a token ({', '.join(*kinds)})"


def _energy_of(phase: PhaseRecord) -> Iterator[str]:
    head = (
        *("meter", "energy", "power, mean", "power, max", "clock, mean", "clock, min"),
        *("temperature, max", "throttled by"),
    )
    rows = [row for meters in phase.telemetry for row in _meter_rows(meters, phase.duration_s)]
    yield f"{phase.name.capitalize()}:"
    if rows:
        yield table(head, rows)
    for meters in phase.telemetry:
        if meters.gpus_missing:
            yield inline(f"GPUs of {meters.node} were not read: {meters.gpus_missing}.")
    if each := energy_per_token(phase):
        yield f"{each} of output."


def _meter_rows(meters: NodeTelemetry, duration_s: float | None) -> Iterator[tuple[str, ...]]:
    if meters.cpu_energy_j is not None or meters.cpu_clock_mhz_mean is not None:
        yield (
            f"{meters.node} CPU",
            quantity(meters.cpu_energy_j, "J"),
            _power(meters.cpu_energy_j, duration_s),
            "-",
            quantity(meters.cpu_clock_mhz_mean, "MHz"),
            quantity(meters.cpu_clock_mhz_min, "MHz"),
            "-",
            "-",
        )
    if meters.dram_energy_j is not None:
        power = _power(meters.dram_energy_j, duration_s)
        yield (f"{meters.node} DRAM", quantity(meters.dram_energy_j, "J"), power, *["-"] * 5)
    for gpu in meters.gpus:
        yield (
            f"{meters.node} GPU {gpu.index}",
            quantity(gpu.energy_j, "J"),
            quantity(gpu.power_w_mean, "W"),
            quantity(gpu.power_w_max, "W"),
            quantity(gpu.sm_clock_mhz_mean, "MHz"),
            quantity(gpu.sm_clock_mhz_min, "MHz"),
            "-" if gpu.temperature_c_max is None else f"{number(gpu.temperature_c_max)} °C",
            _throttled_by(gpu),
        )


def _power(energy_j: float | None, duration_s: float | None) -> str:
    return quantity(energy_j / duration_s, "W") if energy_j and duration_s else "-"


def _throttled_by(gpu: GpuTelemetry) -> str:
    causes = (("power", gpu.slowed_by_power), ("heat", gpu.slowed_by_heat))
    throttled = [f"{cause} {percent(share)}" for cause, share in causes if share]
    known = any(share is not None for _, share in causes)
    return ", ".join(throttled) or ("nothing" if known else "-")
