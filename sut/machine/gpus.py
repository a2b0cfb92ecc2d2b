"""The GPUs that CUDA gives a process, by the driver: ``python -m sut.machine.gpus`` (JSON).

A program of its own: whoever has called into CUDA can't start engines by fork any more, and a
driver that hangs must not hang the run.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import uuid

import msgspec

from sut.values import Struct

LOOK_S = 20


class Gpu(Struct, frozen=True, kw_only=True):
    """One GPU. Memory is that of now; ``pids`` are of the processes that compute on it, as far as
    they can be seen from here: a container hides others'."""

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
    """Why there is no CUDA here."""


def look() -> Cuda:
    """Ask in a process of its own. Raises CudaError."""
    command = [sys.executable, "-m", "sut.machine.gpus"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_S)
    except subprocess.TimeoutExpired:
        raise CudaError(f"the NVIDIA driver did not answer within {LOOK_S} s") from None
    if done.returncode != 0:
        raise CudaError(done.stderr.strip() or f"the look at it died with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Cuda)


def main() -> int:
    try:
        print(msgspec.json.encode(_ask_driver()).decode())
    except CudaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _ask_driver() -> Cuda:
    driver = _Driver()
    version = driver.number("cuDriverGetVersion")
    uuids = [driver.uuid(ordinal) for ordinal in range(driver.number("cuDeviceGetCount"))]
    import pynvml

    try:
        pynvml.nvmlInit()
        return Cuda(
            version=(version // 1000, version % 1000 // 10),
            driver=str(pynvml.nvmlSystemGetDriverVersion()),
            gpus=tuple(_gpu(each) for each in uuids),
        )
    except pynvml.NVMLError as error:
        raise CudaError(f"the NVIDIA management library says: {error}") from None


def _gpu(device_uuid: str) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByUUID(device_uuid)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return Gpu(
        uuid=device_uuid,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_mib=memory.total // 2**20,
        free_mib=memory.free // 2**20,
        pids=tuple(process.pid for process in processes),
    )


class _Driver:
    """libcuda: it heeds CUDA_VISIBLE_DEVICES, and answers only where a GPU can be computed on."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError(
                f"no NVIDIA driver is to be seen: {error}. In a container it comes with "
                "Apptainer's --nv, from a host that has one"
            ) from None
        self._call("cuInit", 0)

    def number(self, function: str) -> int:
        """What ``function(int*)`` gives."""
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
            raise CudaError(f"CUDA's {function} says {text}: no GPU can be used here")


if __name__ == "__main__":
    sys.exit(main())
