"""The GPUs that CUDA gives a process: ``python -m sut.machine.cuda`` prints them as JSON.

CUDA's driver, not NVML, decides which GPUs a process can use and which CUDA versions it can run.
It is queried in a child process: a process that has called CUDA cannot start engines by fork, and
a driver that hangs must not hang the run.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import uuid
from typing import Any

import msgspec

from sut.machine import nvml
from sut.machine.nvml import Nvml
from sut.values import Struct

PROBE_S = 20


class Gpu(Struct, frozen=True, kw_only=True):
    """One GPU. ``free_mib`` is the memory free at the time of the query. ``pids`` are the compute
    processes that the driver shows here; inside a container it hides others."""

    uuid: str
    name: str
    memory_mib: int
    free_mib: int
    pids: tuple[int, ...]


class Cuda(Struct, frozen=True, kw_only=True):
    """``version`` is the newest CUDA that the driver can run, major and minor."""

    version: tuple[int, int]
    driver: str
    gpus: tuple[Gpu, ...]


class CudaError(Exception):
    """Why CUDA is unavailable."""


def probe() -> Cuda:
    """Query CUDA in a child process. Raises CudaError."""
    command = [sys.executable, "-m", "sut.machine.cuda"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S)
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
    uuids = [driver.uuid(ordinal) for ordinal in range(driver.number("cuDeviceGetCount"))]
    with nvml.opened() as found:
        if found.driver is None:
            raise CudaError(f"NVML is unavailable: {found.problem}")
        return Cuda(
            version=(version // 1000, version % 1000 // 10),
            driver=found.driver,
            gpus=tuple(_gpu(found, each) for each in uuids),
        )


def _gpu(found: Nvml, device_uuid: str) -> Gpu:
    gpu = found.by_uuid(device_uuid)

    def query(name: str) -> Any:
        value = gpu and gpu.query(name)
        if value is None:
            raise CudaError(f"NVML reports no {name} of {device_uuid}")
        return value

    memory = query("MemoryInfo")
    return Gpu(
        uuid=device_uuid,
        name=str(query("Name")),
        memory_mib=memory.total // 2**20,
        free_mib=memory.free // 2**20,
        pids=tuple(process.pid for process in query("ComputeRunningProcesses")),
    )


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
        device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGet", ctypes.byref(device), ordinal)
        self._call("cuDeviceGetUuid", ctypes.byref(raw), device)
        return f"GPU-{uuid.UUID(bytes=bytes(raw))}"

    def _call(self, function: str, *arguments: object) -> None:
        status: int = getattr(self._library, function)(*arguments)
        if status != 0:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(name))
            text = (name.value or b"error %d" % status).decode()
            raise CudaError(f"no usable GPU: {function} returned {text}")


if __name__ == "__main__":
    sys.exit(main())
