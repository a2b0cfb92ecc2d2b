"""A node's energy, clocks and GPU memory, read once a second during a run.

A :class:`Sampler` appends one JSON object a line to ``RUN_DIR/telemetry/<node>.jsonl``. GPUs are
read through NVML, the CPU's energy from RAPL under ``/sys/class/powercap`` and its clock from
cpufreq. A meter that the node lacks is left out, and a node without meters has no file. Nothing
here makes a run fail or wait.

This is not MLPerf Power, which measures at the wall with an approved instrument.
``python -m sut.machine.meters`` prints one reading.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from sut.machine import nvml
from sut.machine.nvml import Nvml, Visible

INTERVAL_S = 1.0
STOP_S = 5.0  # a thread whose driver hangs is abandoned

# NVML's reasons for a clock below the highest, grouped by their remedy.
_POWER = 0x4 | 0x80  # the power cap, the power brake
_HEAT = 0x20 | 0x40  # software and hardware thermal slowdown


class Gpu(msgspec.Struct, omit_defaults=True):
    """One GPU at one moment, by NVML's index. ``energy_j`` counts from the driver's start."""

    index: int
    energy_j: float | None = None
    power_w: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    utilization: float | None = None  # 0 to 1
    memory_used_mib: int | None = None
    slowed_by_power: bool | None = None
    slowed_by_heat: bool | None = None


class Reading(msgspec.Struct, omit_defaults=True):
    """One node at one moment. Energies count from an arbitrary moment before the first reading."""

    unix_s: float
    cpu_energy_j: float | None = None  # all packages
    dram_energy_j: float | None = None
    cpu_clock_mhz: float | None = None  # mean of the cores this process may use
    gpus: list[Gpu] = []
    gpus_missing: str = ""  # why GPUs of the run are not read


class Rapl:
    """One RAPL zone: a counter of microjoules that wraps around."""

    def __init__(self, zone: Path) -> None:
        """Raises OSError or ValueError for an unreadable zone."""
        self._counter = zone / "energy_uj"
        self._range_uj = int((zone / "max_energy_range_uj").read_text())
        self._last_uj = int(self._counter.read_text())
        self._total_uj = 0

    def energy_j(self) -> float:
        """Joules since this object was created. Read it at least once a turn of the counter, which
        takes a minute or more at any power of a package."""
        now_uj = int(self._counter.read_text())
        passed = now_uj - self._last_uj
        self._total_uj += passed if passed >= 0 else passed + self._range_uj
        self._last_uj = now_uj
        return self._total_uj / 1e6


def rapl_zones(sysfs: Path, kind: str) -> list[Rapl]:
    """The readable zones named ``package-N`` (``kind`` package) or ``dram``.

    A package appears again as ``intel-rapl-mmio``, in its cores' zones and in the platform's.
    Adding those would count its energy twice.
    """
    zones = []
    for zone in sorted((sysfs / "class" / "powercap").glob("intel-rapl:*")):
        with contextlib.suppress(OSError, ValueError):
            name = (zone / "name").read_text().strip()
            if name == kind or name.startswith(f"{kind}-"):
                zones.append(Rapl(zone))
    return zones


def clock_files(sysfs: Path, cpus: Sequence[int]) -> list[Path]:
    """The existing cpufreq files of ``cpus``."""
    folders = (sysfs / "devices" / "system" / "cpu" / f"cpu{cpu}" / "cpufreq" for cpu in cpus)
    return [file for folder in folders if (file := folder / "scaling_cur_freq").is_file()]


def _read(gpu: nvml.Gpu) -> Gpu:
    energy_mj = gpu.query("TotalEnergyConsumption")
    power_mw = gpu.query("PowerUsage")
    utilization = gpu.query("UtilizationRates")
    memory = gpu.query("MemoryInfo")
    slowed_by = gpu.query("CurrentClocksThrottleReasons")
    return Gpu(
        index=gpu.index or 0,
        energy_j=None if energy_mj is None else energy_mj / 1e3,
        power_w=None if power_mw is None else power_mw / 1e3,
        sm_clock_mhz=gpu.query("ClockInfo", nvml.CLOCK_SM),
        memory_clock_mhz=gpu.query("ClockInfo", nvml.CLOCK_MEMORY),
        temperature_c=gpu.query("Temperature", nvml.TEMPERATURE_GPU),
        utilization=None if utilization is None else utilization.gpu / 100,
        memory_used_mib=None if memory is None else memory.used // 2**20,
        slowed_by_power=None if slowed_by is None else bool(slowed_by & _POWER),
        slowed_by_heat=None if slowed_by is None else bool(slowed_by & _HEAT),
    )


class Node:
    """The meters of this node. ``places`` are the run's GPUs among the visible ones; None: all."""

    def __init__(
        self,
        found: Nvml | None,
        sysfs: Path = Path("/sys"),
        places: Collection[int] | None = None,
    ) -> None:
        self._gpus, self._missing = found.visible(places) if found else Visible(())
        self._packages = rapl_zones(sysfs, "package")
        self._dram = rapl_zones(sysfs, "dram")
        self._clocks = clock_files(sysfs, sorted(os.sched_getaffinity(0)))

    @property
    def offers_something(self) -> bool:
        meters = (self._packages, self._dram, self._clocks, self._gpus)
        return any(meters) or bool(self._missing)

    def read(self) -> Reading:
        return Reading(
            unix_s=round(time.time(), 3),
            cpu_energy_j=_sum(zone.energy_j for zone in self._packages),
            dram_energy_j=_sum(zone.energy_j for zone in self._dram),
            cpu_clock_mhz=_mean_mhz(self._clocks),
            gpus=[_read(gpu) for gpu in self._gpus],
            gpus_missing=self._missing,
        )


class Sampler:
    """A context inside which a thread reads this node's meters once a second."""

    def __init__(
        self, path: Path, sysfs: Path = Path("/sys"), places: Collection[int] | None = None
    ) -> None:
        """``places``: as in :class:`Node`."""
        self._path = path
        self._places = places
        self._sysfs = sysfs
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        with contextlib.suppress(OSError), nvml.opened() as found:
            node = Node(found, self._sysfs, self._places)
            if not node.offers_something:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                while True:
                    file.write(msgspec.json.encode(node.read()) + b"\n")
                    if self._ended.wait(INTERVAL_S):
                        # Energy is the difference of two readings, so take one at the end.
                        file.write(msgspec.json.encode(node.read()) + b"\n")
                        return


def _sum(readers: Iterator[Callable[[], float]]) -> float | None:
    """The sum of the readable values; None where there is none."""
    values = []
    for read in readers:
        with contextlib.suppress(OSError, ValueError):
            values.append(read())
    return round(sum(values), 3) if values else None


def _mean_mhz(files: Sequence[Path]) -> float | None:
    khz = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            khz.append(int(file.read_text()))
    return round(sum(khz) / len(khz) / 1e3, 1) if khz else None


def main() -> int:
    """Print one reading of this node as JSON."""
    with nvml.opened() as found:
        print(msgspec.json.encode(Node(found).read()).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
