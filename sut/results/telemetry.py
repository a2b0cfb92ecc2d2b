"""Energy, clocks and GPU memory of a phase, from the readings of :mod:`sut.machine.meters`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from sut.machine.meters import INTERVAL_S, Gpu, Reading
from sut.values import UNDECODABLE, Struct

T = TypeVar("T")

# A phase is judged before the reading after its end exists.
BEYOND_S = 2.5 * INTERVAL_S


class GpuTelemetry(Struct, frozen=True, kw_only=True):
    """One GPU during a phase. ``slowed_by_*`` is the share of readings, 0 to 1."""

    index: int
    energy_j: float | None = None
    power_w_mean: float | None = None
    power_w_max: float | None = None
    sm_clock_mhz_mean: float | None = None
    sm_clock_mhz_min: int | None = None
    memory_clock_mhz_mean: float | None = None
    temperature_c_max: int | None = None
    utilization_mean: float | None = None
    memory_used_mib_max: int | None = None
    slowed_by_power: float | None = None
    slowed_by_heat: float | None = None


class NodeTelemetry(Struct, frozen=True, kw_only=True):
    """One node during a phase, by its own meters; None for a meter it does not have.

    Energies cover the time from the phase's start to its end. Not MLPerf Power.
    """

    node: str
    num_readings: int
    cpu_energy_j: float | None = None
    dram_energy_j: float | None = None
    cpu_clock_mhz_mean: float | None = None
    cpu_clock_mhz_min: float | None = None
    gpus: tuple[GpuTelemetry, ...] = ()
    gpus_missing: str = ""  # why GPUs of the run were not read

    @property
    def energy_j(self) -> dict[str, float]:
        """The sum by kind of meter: CPU, DRAM or GPUs. A kind with an unknown energy is left
        out."""
        of_gpus: list[float | None] = [gpu.energy_j for gpu in self.gpus]
        of_gpus += [None] if self.gpus_missing else []  # the sum would lack them
        kinds = {"CPU": [self.cpu_energy_j], "DRAM": [self.dram_energy_j], "GPUs": of_gpus}
        return {
            kind: sum(_known(values))
            for kind, values in kinds.items()
            if values and len(_known(values)) == len(values)
        }


def read(path: Path) -> list[Reading]:
    """A node's readings by time; empty without a file. Skips damaged lines, and what is before a
    moment at which the clock was set back."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    readings: list[Reading] = []
    for line in lines:
        try:
            reading = msgspec.json.decode(line, type=Reading)
        except UNDECODABLE:
            continue
        if readings and reading.unix_s < readings[-1].unix_s:
            readings.clear()
        readings.append(reading)
    return readings


def summarize(
    node: str, readings: Sequence[Reading], start_s: float, end_s: float
) -> NodeTelemetry | None:
    """The node from ``start_s`` to ``end_s``, in Unix time; None without a reading in it."""
    inside = [reading for reading in readings if start_s <= reading.unix_s <= end_s]
    if not inside:
        return None

    def energy_of(counter: Callable[[Reading], float | None]) -> float | None:
        points = [(r.unix_s, value) for r in readings if (value := counter(r)) is not None]
        begin, end = _at(points, start_s), _at(points, end_s)
        return None if begin is None or end is None else round(end - begin, 1)

    clocks = [r.cpu_clock_mhz for r in inside if r.cpu_clock_mhz is not None]
    return NodeTelemetry(
        node=node,
        num_readings=len(inside),
        cpu_energy_j=energy_of(lambda reading: reading.cpu_energy_j),
        dram_energy_j=energy_of(lambda reading: reading.dram_energy_j),
        cpu_clock_mhz_mean=_mean(clocks),
        cpu_clock_mhz_min=min(clocks, default=None),
        gpus=tuple(
            _gpu(
                index,
                [gpu for r in inside if (gpu := _find(r, index))],
                energy_of(functools.partial(_gpu_energy_j, index)),
            )
            for index in sorted({gpu.index for reading in inside for gpu in reading.gpus})
        ),
        gpus_missing=inside[0].gpus_missing,
    )


def _gpu(index: int, seen: Sequence[Gpu], energy_j: float | None) -> GpuTelemetry:
    power = _known(gpu.power_w for gpu in seen)
    clock = _known(gpu.sm_clock_mhz for gpu in seen)
    return GpuTelemetry(
        index=index,
        energy_j=energy_j,
        power_w_mean=_mean(power),
        power_w_max=max(power, default=None),
        sm_clock_mhz_mean=_mean(clock),
        sm_clock_mhz_min=min(clock, default=None),
        memory_clock_mhz_mean=_mean(_known(gpu.memory_clock_mhz for gpu in seen)),
        temperature_c_max=max(_known(gpu.temperature_c for gpu in seen), default=None),
        utilization_mean=_mean(_known(gpu.utilization for gpu in seen), digits=4),
        memory_used_mib_max=max(_known(gpu.memory_used_mib for gpu in seen), default=None),
        slowed_by_power=_mean(_known(gpu.slowed_by_power for gpu in seen), digits=4),
        slowed_by_heat=_mean(_known(gpu.slowed_by_heat for gpu in seen), digits=4),
    )


def _gpu_energy_j(index: int, reading: Reading) -> float | None:
    gpu = _find(reading, index)
    return None if gpu is None else gpu.energy_j


def _find(reading: Reading, index: int) -> Gpu | None:
    return next((gpu for gpu in reading.gpus if gpu.index == index), None)


def _at(points: Sequence[tuple[float, float]], moment: float) -> float | None:
    """The counter at ``moment``, interpolated between the two adjacent readings."""
    if len(points) < 2 or not points[0][0] - BEYOND_S <= moment <= points[-1][0] + BEYOND_S:
        return None
    after = next((i for i, (t, _) in enumerate(points) if t >= moment), len(points) - 1)
    (t0, value0), (t1, value1) = points[max(after, 1) - 1], points[max(after, 1)]
    return value0 + (value1 - value0) * (moment - t0) / (t1 - t0 or 1)


def _known(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float], digits: int = 1) -> float | None:
    return round(sum(values) / len(values), digits) if values else None
