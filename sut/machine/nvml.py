"""This node's GPUs, read through NVML. Environment, preflight and telemetry have no other reader.

Where the Python package, the driver or a GPU is missing there are no GPUs. That is no error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

# Arguments of queries, from nvml.h.
CLOCK_SM = 1
CLOCK_MEMORY = 2
TEMPERATURE_GPU = 0


class Gpu:
    def __init__(self, module: ModuleType, handle: Any) -> None:
        self._module = module
        self._handle = handle

    def query(self, name: str, *arguments: int) -> Any:
        """The result of ``nvmlDeviceGet<name>``; None where GPU or driver do not support it."""
        try:
            return getattr(self._module, f"nvmlDeviceGet{name}")(self._handle, *arguments)
        except self._module.NVMLError:
            return None


class Nvml:
    """The GPUs of this node by NVML's index, and the driver's version. ``problem`` is why there
    are none; empty where NVML works."""

    def __init__(self, module: ModuleType | None, problem: str = "") -> None:
        self._module = module
        self.problem = problem
        self.gpus: list[Gpu] = []
        self.driver: str | None = None
        if module is not None:
            number = range(module.nvmlDeviceGetCount())
            self.gpus = [Gpu(module, module.nvmlDeviceGetHandleByIndex(i)) for i in number]
            self.driver = str(module.nvmlSystemGetDriverVersion())

    def by_uuid(self, uuid: str) -> Gpu | None:
        assert self._module is not None
        try:
            return Gpu(self._module, self._module.nvmlDeviceGetHandleByUUID(uuid))
        except self._module.NVMLError:
            return None

    def visible(self) -> list[tuple[int, Gpu]]:
        """The GPUs that ``CUDA_VISIBLE_DEVICES`` allows, with NVML's index."""
        uuids = [str(gpu.query("UUID")) for gpu in self.gpus]
        indices = chosen(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)
        return [(index, self.gpus[index]) for index in indices]


@contextlib.contextmanager
def opened() -> Iterator[Nvml]:
    """NVML, initialised inside the context."""
    try:
        import pynvml
    except ImportError:
        yield Nvml(None, "the package nvidia-ml-py is not installed")
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:  # no library, or a driver that refuses
        yield Nvml(None, str(error))
        return
    try:
        yield _read(pynvml)
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _read(module: ModuleType) -> Nvml:
    try:
        return Nvml(module)
    except module.NVMLError as error:
        return Nvml(None, str(error))


def chosen(visible: str | None, uuids: Sequence[str]) -> list[int]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` lists, by index or by the start of a UUID.

    All of them where it is unset, or lists one that NVML does not: its numbers are then not NVML's.
    """
    words = [word.strip() for word in (visible or "").split(",") if word.strip()]
    found = []
    for word in words:
        if word.isdecimal():
            found += [int(word)] if int(word) < len(uuids) else []
        else:
            found += [i for i, uuid in enumerate(uuids) if uuid.startswith(word)][:1]
    return found if words and len(found) == len(words) else list(range(len(uuids)))
