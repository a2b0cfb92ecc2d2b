"""What a node's meters say while a run uses it: energy, clocks and GPU memory, once a second.

A :class:`Sampler` appends one JSON object a line to ``RUN_DIR/telemetry/<node>.jsonl``. GPUs are
read through NVML, the CPU's energy from RAPL under ``/sys/class/powercap``, its clock from cpufreq.
What a node does not offer is left out; where it offers nothing there is no file. Nothing in here
fails or holds up a run.

This is not MLPerf Power, which measures at the wall with an approved instrument.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import msgspec

INTERVAL_S = 1.0
STOP_S = 5.0  # a driver that hangs is left behind

# NVML's reasons for a clock below the highest, by what a user can do about them.
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
    """One node at one moment. Energies count up from some moment before the first reading."""

    unix_s: float
    cpu_energy_j: float | None = None  # all packages
    dram_energy_j: float | None = None
    cpu_clock_mhz: float | None = None  # mean of the cores this process may use
    gpus: list[Gpu] = []


class Rapl:
    """One RAPL zone: a counter of microjoules that wraps around."""

    def __init__(self, zone: Path) -> None:
        """Raises OSError or ValueError for a zone that can't be read."""
        self._counter = zone / "energy_uj"
        self._range_uj = int((zone / "max_energy_range_uj").read_text())
        self._last_uj = int(self._counter.read_text())
        self._total_uj = 0

    def energy_j(self) -> float:
        """Joules since this object was made, if read at least once a turn of the counter (a
        minute or more at any power a package can take)."""
        now_uj = int(self._counter.read_text())
        passed = now_uj - self._last_uj
        self._total_uj += passed if passed >= 0 else passed + self._range_uj
        self._last_uj = now_uj
        return self._total_uj / 1e6


def rapl_zones(sysfs: Path, kind: str) -> list[Rapl]:
    """The zones called ``package-N`` (``kind`` package) or ``dram`` that we may read.

    The same package also shows as ``intel-rapl-mmio``; its cores and the whole platform are other
    zones. Counting them too would count twice.
    """
    zones = []
    for zone in sorted((sysfs / "class" / "powercap").glob("intel-rapl:*")):
        with contextlib.suppress(OSError, ValueError):
            name = (zone / "name").read_text().strip()
            if name == kind or name.startswith(f"{kind}-"):
                zones.append(Rapl(zone))
    return zones


def clock_files(sysfs: Path, cpus: Sequence[int]) -> list[Path]:
    """The files that tell the clocks of ``cpus``, where there are any."""
    folders = (sysfs / "devices" / "system" / "cpu" / f"cpu{cpu}" / "cpufreq" for cpu in cpus)
    return [file for folder in folders if (file := folder / "scaling_cur_freq").is_file()]


class Nvml:
    """The GPUs that NVML shows and this process may use."""

    def __init__(self, nvml: ModuleType, visible: str | None) -> None:
        self._nvml = nvml
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
        self._gpus = [(i, handles[i]) for i in chosen(visible, uuids)]

    def read(self) -> list[Gpu]:
        return [self._read(index, handle) for index, handle in self._gpus]

    def _read(self, index: int, handle: Any) -> Gpu:
        n = self._nvml
        energy_mj = self._try(n.nvmlDeviceGetTotalEnergyConsumption, handle)
        power_mw = self._try(n.nvmlDeviceGetPowerUsage, handle)
        utilization = self._try(n.nvmlDeviceGetUtilizationRates, handle)
        memory = self._try(n.nvmlDeviceGetMemoryInfo, handle)
        slowed_by = self._try(n.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        return Gpu(
            index=index,
            energy_j=None if energy_mj is None else energy_mj / 1e3,
            power_w=None if power_mw is None else power_mw / 1e3,
            sm_clock_mhz=self._try(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_SM),
            memory_clock_mhz=self._try(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_MEM),
            temperature_c=self._try(n.nvmlDeviceGetTemperature, handle, n.NVML_TEMPERATURE_GPU),
            utilization=None if utilization is None else utilization.gpu / 100,
            memory_used_mib=None if memory is None else memory.used // 2**20,
            slowed_by_power=None if slowed_by is None else bool(slowed_by & _POWER),
            slowed_by_heat=None if slowed_by is None else bool(slowed_by & _HEAT),
        )

    def _try(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What NVML answers, or None where this GPU or driver does not tell."""
        try:
            return function(*arguments)
        except self._nvml.NVMLError:
            return None


def chosen(visible: str | None, uuids: Sequence[str]) -> list[int]:
    """Which GPUs ``CUDA_VISIBLE_DEVICES`` names, by index or by the beginning of a UUID.

    All of them where it is unset or names one that is not there: it was then made for other
    numbers than NVML's.
    """
    words = [word.strip() for word in (visible or "").split(",") if word.strip()]
    found = []
    for word in words:
        if word.isdecimal():
            found += [int(word)] if int(word) < len(uuids) else []
        else:
            found += [i for i, uuid in enumerate(uuids) if uuid.startswith(word)][:1]
    return found if words and len(found) == len(words) else list(range(len(uuids)))


@contextlib.contextmanager
def nvml_of_this_node() -> Iterator[Nvml | None]:
    """NVML while it is needed; None where there is no library, no driver or no GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, or one that refuses
        yield None
        return
    try:
        nvml = None
        with contextlib.suppress(pynvml.NVMLError):
            nvml = Nvml(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
        yield nvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


class Node:
    """Everything that is read on this node."""

    def __init__(self, nvml: Nvml | None, sysfs: Path = Path("/sys")) -> None:
        self._nvml = nvml
        self._packages = rapl_zones(sysfs, "package")
        self._dram = rapl_zones(sysfs, "dram")
        self._clocks = clock_files(sysfs, sorted(os.sched_getaffinity(0)))

    @property
    def offers_something(self) -> bool:
        return bool(self._packages or self._dram or self._clocks or self.read().gpus)

    def read(self) -> Reading:
        return Reading(
            unix_s=round(time.time(), 3),
            cpu_energy_j=_sum(zone.energy_j for zone in self._packages),
            dram_energy_j=_sum(zone.energy_j for zone in self._dram),
            cpu_clock_mhz=_mean_mhz(self._clocks),
            gpus=self._nvml.read() if self._nvml else [],
        )


class Sampler:
    """A context: inside it this node is read once a second, by a thread of its own."""

    def __init__(self, path: Path, sysfs: Path = Path("/sys")) -> None:
        self._path = path
        self._sysfs = sysfs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        with contextlib.suppress(OSError), nvml_of_this_node() as nvml:
            node = Node(nvml, self._sysfs)
            if not node.offers_something:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                while True:
                    file.write(msgspec.json.encode(node.read()) + b"\n")
                    if self._over.wait(INTERVAL_S):
                        # A last one: energy is the difference of two readings.
                        file.write(msgspec.json.encode(node.read()) + b"\n")
                        return


def _sum(readers: Iterator[Callable[[], float]]) -> float | None:
    """The sum of what can be read; None where nothing can."""
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
