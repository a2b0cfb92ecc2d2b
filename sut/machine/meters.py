"""A node's energy, clocks and GPU memory, read once a second during a run.

A :class:`Sampler` appends one JSON object a line to ``RUN_DIR/telemetry/<node>.jsonl``. GPUs are
read through NVML, the CPU's energy from RAPL under ``/sys/class/powercap`` and its clock from
cpufreq. A meter that the node lacks is left out, and a node without meters has no file. Nothing
here makes a run fail or wait; :attr:`Sampler.outage` is when and why readings are missing.

This is not MLPerf Power, which measures at the wall with an approved instrument.
``python -m sut.machine.meters`` prints one reading.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from sut.machine import nvml
from sut.machine.nvml import Nvml, Visible
from sut.rundir import LineFile, Outage, Outages

INTERVAL_S = 1.0
STOP_S = 5.0  # a driver that takes longer for a reading hangs; its thread is abandoned

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


# By the field that each fills.
_QUERIES = {
    "energy_j": "TotalEnergyConsumption",
    "power_w": "PowerUsage",
    "utilization": "UtilizationRates",
    "memory_used_mib": "MemoryInfo",
    "slowed_by_power": "CurrentClocksThrottleReasons",
    "slowed_by_heat": "CurrentClocksThrottleReasons",
    "sm_clock_mhz": "ClockInfo",
    "memory_clock_mhz": "ClockInfo",
    "temperature_c": "Temperature",
}


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

    def why_gone(self, gone: Mapping[str, int | None]) -> str:
        """``gone`` are meters that had a value before, with the GPU of each."""
        name, index = next(iter(gone.items()))
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        query = _QUERIES.get(name.rpartition(" ")[2], "")
        why = next((gpu.refused.get(query, "") for gpu in self._gpus if gpu.index == index), "")
        return f"no value of {name}{more}" + (f": {why}" if why else "")


def readable(reading: Reading) -> dict[str, int | None]:
    """The meters with a value, e.g. ``cpu_energy_j`` or ``GPU 0 power_w``, and the GPU of each."""
    fields = [name for name in Reading.__struct_fields__ if name.startswith(("cpu_", "dram_"))]
    found: dict[str, int | None] = {
        name: None for name in fields if getattr(reading, name) is not None
    }
    for gpu in reading.gpus:
        for name in Gpu.__struct_fields__:
            if name != "index" and getattr(gpu, name) is not None:
                found[f"GPU {gpu.index} {name}"] = gpu.index
    return found


class Sampler:
    """A context inside which a thread reads this node's meters once a second."""

    def __init__(
        self, path: Path, sysfs: Path = Path("/sys"), places: Collection[int] | None = None
    ) -> None:
        """``places``: as in :class:`Node`."""
        self._file = LineFile(path)
        self._places = places
        self._sysfs = sysfs
        self._outages = Outages()  # of the meters
        self._busy_since: float | None = None  # the thread asks the driver, or starts to
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Sampler:
        try:
            self._thread.start()
        except RuntimeError as error:  # the limit on threads
            self._outages.fails(str(error))
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    @property
    def outage(self) -> Outage | None:
        """When readings were lost: by the meters, by a driver that hangs, or by the disk."""
        found = [each for each in (self._outages.found, self._file.outage) if each is not None]
        since = self._busy_since
        if since is not None and time.monotonic() - since >= STOP_S:
            found.append(Outage("the driver does not answer", since))
        return min(found, key=lambda each: each.begin, default=None)

    def _run(self) -> None:
        try:
            self._busy_since = time.monotonic()
            with nvml.opened() as found:
                node = Node(found, self._sysfs, self._places)
                if node.offers_something:
                    self._sample(node)
        except Exception as error:  # of a binding or a driver: the run goes on without
            self._outages.fails(f"{type(error).__name__}: {error}")
        finally:
            self._busy_since = None

    def _sample(self, node: Node) -> None:
        had: dict[str, int | None] = {}  # what has been readable
        last = False
        while True:
            self._busy_since = time.monotonic()
            reading = node.read()
            self._busy_since = None
            now = readable(reading)
            had.update(now)
            if gone := {name: gpu for name, gpu in had.items() if name not in now}:
                self._outages.fails(node.why_gone(gone))
            else:
                self._outages.works()
            self._file.append(msgspec.json.encode(reading))
            if last:
                return
            # Energy is the difference of two readings, so take one at the end.
            last = self._ended.wait(INTERVAL_S)


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
