"""This node's GPUs, read through NVML. Environment, preflight and telemetry have no other reader.

Where the Python package, the driver or a GPU is missing there are no GPUs. That is no error. Every
query may be refused: by MIG, by a GPU whose memory is the host's, by missing rights, by an old GPU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

# Arguments of queries, from nvml.h.
CLOCK_SM = 1
CLOCK_MEMORY = 2
TEMPERATURE_GPU = 0

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_NVMLS_ORDER = "PCI_BUS_ID"
OF_INSTANCES = "MIG-"  # a MIG instance's UUID begins so


class Gpu:
    """A GPU, or a MIG instance of one. ``index`` is NVML's; an instance has its GPU's.

    ``refused`` are the queries that returned None, with NVML's words.
    """

    def __init__(self, module: ModuleType, handle: Any, index: int | None = None) -> None:
        self._module = module
        self._handle = handle
        self.index = index
        self.refused: dict[str, str] = {}

    def query(self, name: str, *arguments: int) -> Any:
        """The result of ``nvmlDeviceGet<name>``; None where GPU or driver refuse it."""
        try:
            return getattr(self._module, f"nvmlDeviceGet{name}")(self._handle, *arguments)
        except self._module.NVMLError as error:
            self.refused[name] = str(error)
            return None

    @property
    def is_divided(self) -> bool:
        """Whether it is in MIG mode: what it reports is then the sum of its instances."""
        mode = self.query("MigMode")
        return bool(mode and mode[0])

    def instances(self) -> list[Gpu]:
        """Its MIG instances that this process may see."""
        number = self.query("MaxMigDeviceCount") if self.is_divided else 0
        handles = [self.query("MigDeviceHandleByIndex", i) for i in range(number or 0)]
        return [Gpu(self._module, each, self.index) for each in handles if each is not None]


class Visible(NamedTuple):
    """Whole GPUs. ``missing`` is why others that the process may use are not among them; empty for
    none."""

    gpus: tuple[Gpu, ...]
    missing: str = ""


class Nvml:
    """The GPUs of this node in NVML's order, and the driver's version. ``problem`` is why one or
    all of them are missing; empty where NVML works."""

    def __init__(self, module: ModuleType | None, problem: str = "") -> None:
        self._module = module
        self.problem = problem
        self.count = 0  # also of GPUs that cannot be queried
        self.gpus: list[Gpu] = []
        self.driver: str | None = None
        if module is None:
            return
        with self._noting("driver version"):
            self.driver = str(module.nvmlSystemGetDriverVersion())
        with self._noting("number of GPUs"):
            self.count = module.nvmlDeviceGetCount()
        for index in range(self.count):
            with self._noting(f"GPU {index}"):  # it is lost, or another user's
                handle = module.nvmlDeviceGetHandleByIndex(index)
                self.gpus.append(Gpu(module, handle, index))

    def by_uuid(self, uuid: str) -> Gpu | None:
        if self._module is None:
            return None
        try:
            return Gpu(self._module, self._module.nvmlDeviceGetHandleByUUID(uuid))
        except self._module.NVMLError:
            return None

    def visible(
        self, places: Collection[int] | None = None, environment: Mapping[str, str] = os.environ
    ) -> Visible:
        """The GPUs at these places of ``CUDA_VISIBLE_DEVICES``, or of all GPUs where it is unset;
        without ``places`` all that it allows."""
        listed, order = environment.get(VISIBLE), environment.get(ORDER)
        if (listed is not None and not listed.strip()) or (places is not None and not places):
            return Visible(())
        if not self.gpus:
            return Visible((), self.problem if places else "")
        by_number = places is not None
        if listed is not None:
            by_number = any(word.isdecimal() for word in _words(listed))
        names = {str(gpu.query("Name")) for gpu in self.gpus}
        if by_number and len(names) > 1 and order != _NVMLS_ORDER:
            # CUDA puts the fastest first.
            return Visible((), f"GPUs of several kinds, and {ORDER} is not {_NVMLS_ORDER}")
        known = {gpu.index: gpu for gpu in self.gpus}
        uuids = [str(known[i].query("UUID")) if i in known else "" for i in range(self.count)]
        allowed = chosen(listed, uuids)
        if places is None:
            places = range(self.count if listed is None else len(_words(listed)))
        found = [known.get(allowed[place]) for place in sorted(places) if place < len(allowed)]
        whole = tuple(gpu for gpu in found if gpu is not None and not gpu.is_divided)
        if len(whole) == len(places):
            return Visible(whole)
        if OF_INSTANCES in (listed or "") or any(gpu.is_divided for gpu in found if gpu):
            return Visible(whole, "NVML reads energy, power and clocks of whole GPUs only, not MIG")
        return Visible(whole, f"{VISIBLE}={listed or ''}: not all of them are GPUs of NVML")

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        assert self._module is not None
        try:
            yield
        except self._module.NVMLError as error:
            self.problem = "; ".join(filter(None, (self.problem, f"{what}: {error}")))


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
        yield Nvml(pynvml)
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def chosen(visible: str | None, uuids: Sequence[str]) -> list[int]:
    """The places of the GPUs that a value of ``CUDA_VISIBLE_DEVICES`` allows, each once; ``uuids``
    are those of all GPUs.

    As CUDA reads it: a number, or the beginning of one UUID only; what follows the first word that
    is neither is hidden, so ``-1``, ``NoDevFiles`` and an empty value hide all. Unset allows all.
    """
    if visible is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for word in _words(visible):
        if word.isdecimal():
            places = [int(word)] if int(word) < len(uuids) else []
        else:
            places = [place for place, uuid in enumerate(uuids) if uuid.startswith(word)]
        if len(places) != 1:
            break
        found += [place for place in places if place not in found]
    return found


def _words(visible: str) -> list[str]:
    return [word.strip() for word in visible.split(",")] if visible.strip() else []
