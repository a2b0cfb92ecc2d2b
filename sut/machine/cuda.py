"""The GPUs that CUDA gives a process: ``python -m sut.machine.cuda`` prints them as JSON.

CUDA's driver, not NVML, decides which GPUs a process can use and which CUDA versions it can run.
It is queried in a child process: a process that has called CUDA cannot start engines by fork, and
a driver that hangs must not hang the run.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sut.machine import nvml
from sut.machine.nvml import Nvml
from sut.values import Struct

PROBE_S = 20
_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED of cuda.h


class Gpu(Struct, frozen=True, kw_only=True):
    """One GPU, or one MIG instance. None: not known, for a reason in ``missing``.

    ``free_mib`` is the memory free at the time of the query; of a GPU that shares the host's
    memory, what the host can make free. ``pids`` are the compute processes that the driver shows
    here; inside a container it hides others.
    """

    uuid: str
    name: str
    memory_mib: int | None
    free_mib: int | None
    pids: tuple[int, ...] | None
    missing: tuple[str, ...] = ()


class Cuda(Struct, frozen=True, kw_only=True):
    """``version`` is the newest CUDA that the driver can run, major and minor. ``driver`` is None
    where NVML does not report it."""

    version: tuple[int, int]
    driver: str | None
    gpus: tuple[Gpu, ...]


class CudaError(Exception):
    """Why CUDA is unavailable."""


def probe() -> Cuda:
    """Query CUDA in a child process, or in one for each MIG instance: CUDA shows a process only the
    first of those in CUDA_VISIBLE_DEVICES. Raises CudaError."""
    words = [word.strip() for word in os.environ.get(nvml.VISIBLE, "").split(",")]
    if len(words) < 2 or not all(word.startswith(nvml.OF_INSTANCES) for word in words):
        return _probe({})
    found = [_probe({nvml.VISIBLE: word}) for word in words]
    gpus = tuple(gpu for each in found for gpu in each.gpus)
    return Cuda(version=found[0].version, driver=found[0].driver, gpus=gpus)


def _probe(changes: Mapping[str, str]) -> Cuda:
    command = [sys.executable, "-m", "sut.machine.cuda"]
    environment = {**os.environ, **changes}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise CudaError(f"no answer from the NVIDIA driver within {PROBE_S} s") from None
    if done.returncode != 0:
        raise CudaError(done.stderr.strip() or f"GPU probe exited with code {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Cuda)


def main() -> int:
    try:
        print(msgspec.json.encode(_query()).decode())
    except CudaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _query() -> Cuda:
    driver = _Driver()
    version = driver.number("cuDriverGetVersion")
    ordinals = range(driver.number("cuDeviceGetCount"))
    with nvml.opened() as found:
        return Cuda(
            version=(version // 1000, version % 1000 // 10),
            driver=found.driver,
            gpus=tuple(_gpu(driver, found, ordinal) for ordinal in ordinals),
        )


def _gpu(driver: _Driver, found: Nvml, ordinal: int) -> Gpu:
    raw = driver.uuid(ordinal)
    names = (f"GPU-{raw}", f"{nvml.OF_INSTANCES}{raw}")
    uuid, gpu = next(
        ((name, gpu) for name in names if (gpu := found.by_uuid(name))), (names[0], None)
    )
    missing = []
    if gpu is None:
        missing.append(f"NVML: {found.problem or 'does not know this GPU'}")
    elif gpu.is_divided:  # an old driver gives an instance the UUID of its GPU
        missing.append("NVML: only readings of the whole GPU, which is in MIG mode")
        gpu = None

    def query(name: str) -> Any:
        value = gpu and gpu.query(name)
        if gpu is not None and value is None:
            missing.append(f"{name}: {gpu.refused[name]}")
        return value

    name, memory, processes = query("Name"), query("MemoryInfo"), query("ComputeRunningProcesses")
    total = memory.total if memory else driver.memory_bytes(ordinal)
    free = memory.free if memory else None
    if driver.is_integrated(ordinal):
        free = _host_memory_bytes()  # as vLLM does: the page cache is not in use
    return Gpu(
        uuid=uuid,
        name=str(name or driver.name(ordinal) or "unknown"),
        memory_mib=None if total is None else total // 2**20,
        free_mib=None if free is None else free // 2**20,
        pids=None if processes is None else tuple(process.pid for process in processes),
        missing=tuple(missing),
    )


def _host_memory_bytes() -> int | None:
    """The memory that this machine can make free; None where /proc does not give it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kib) * 1024
    except (OSError, ValueError, IndexError, StopIteration):
        return None


class _Driver:
    """libcuda, initialised. It obeys CUDA_VISIBLE_DEVICES."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError(
                f"NVIDIA driver not found: {error}. In a container, Apptainer's --nv adds it from "
                "a host that has one"
            ) from None
        self._call("cuInit", 0)

    def number(self, function: str) -> int:
        """The result of ``function(int*)``."""
        value = ctypes.c_int()
        self._call(function, ctypes.byref(value))
        return value.value

    def uuid(self, ordinal: int) -> str:
        """A MIG instance's own, by the second version of the call; the first one, which old
        drivers have alone, gives its GPU's."""
        raw = (ctypes.c_ubyte * 16)()
        newest = hasattr(self._library, "cuDeviceGetUuid_v2")
        function = "cuDeviceGetUuid_v2" if newest else "cuDeviceGetUuid"
        self._call(function, ctypes.byref(raw), self._device(ordinal))
        return str(uuid.UUID(bytes=bytes(raw)))

    def name(self, ordinal: int) -> str | None:
        text = ctypes.create_string_buffer(256)
        found = self._optional("cuDeviceGetName", text, len(text), self._device(ordinal))
        return text.value.decode(errors="replace") if found else None

    def memory_bytes(self, ordinal: int) -> int | None:
        """All of it; of a GPU that shares the host's, all that it can address."""
        value = ctypes.c_size_t()
        device = self._device(ordinal)
        found = self._optional("cuDeviceTotalMem_v2", ctypes.byref(value), device)
        return value.value if found else None

    def is_integrated(self, ordinal: int) -> bool:
        """Whether it shares the host's memory."""
        value = ctypes.c_int()
        device = self._device(ordinal)
        found = self._optional("cuDeviceGetAttribute", ctypes.byref(value), _INTEGRATED, device)
        return bool(found and value.value)

    def _device(self, ordinal: int) -> ctypes.c_int:
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), ordinal)
        return device

    def _optional(self, function: str, *arguments: object) -> bool:
        """Whether the driver has the function and answers."""
        try:
            status: int = getattr(self._library, function)(*arguments)
        except AttributeError:
            return False
        return status == 0

    def _call(self, function: str, *arguments: object) -> None:
        status: int = getattr(self._library, function)(*arguments)
        if status != 0:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(name))
            text = (name.value or b"error %d" % status).decode()
            raise CudaError(f"no usable GPU: {function} returned {text}")


if __name__ == "__main__":
    sys.exit(main())
