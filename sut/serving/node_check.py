"""What a node is like before engines start on it: can its part of the run work there?

Every check says what was found, also when it is well. What must be the same on all nodes is
compared by :mod:`sut.serving.preflight`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import runpy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sut.cluster import allocation
from sut.errors import SutError
from sut.inputs import hashes, model
from sut.inputs.cache import cache_dir
from sut.machine import environment, gpus, network
from sut.machine.environment import Environment
from sut.plan.benchmark import EngineKind
from sut.plan.fit import utilization
from sut.plan.plan import Part, Plan
from sut.plan.site import Device
from sut.results.record import PreflightCheck
from sut.rundir import RunDir
from sut.serving import wire
from sut.values import Struct

MIB = 2**20
GIB = 2**30
LEAST_DISK = 256 * MIB
LEAST_SHM = 64 * MIB
LEAST_SHM_OF_SEVERAL_RANKS = GIB  # they talk through it
WHOLE_HASH_BYTES = GIB  # more than that would take too long here
NUM_PIECES = 128
PIECE_BYTES = MIB
SHM = Path("/dev/shm")


class NodeReport(Struct, frozen=True, kw_only=True):
    """What one node found. ``model`` and ``data`` are fingerprints, to be the same everywhere."""

    environment: Environment
    checks: tuple[PreflightCheck, ...]
    model: str | None = None
    data: str | None = None


class NodeCheck:
    """One look at this node. ``doing`` tells meanwhile what it looks at."""

    def __init__(
        self, plan: Plan, run_dir: RunDir, index: int, host: str, model_path: Path | None
    ) -> None:
        self.doing = "begins"
        self._plan = plan
        self._run_dir = run_dir
        self._host = host
        self._model_path = model_path
        self._parts = [
            (replica.index, part)
            for replica in plan.replicas
            for part in replica.parts
            if part.node == index
        ]

    def run(self) -> NodeReport:
        """Takes seconds. Nothing that a node can lack raises."""
        checks = [check for looked in self._looks() for check in looked]
        self.doing = "reading the model"
        model_check, model_print = self._model()
        self.doing = "reading the data"
        data_check, data_print = self._data()
        self.doing = "reading the environment"
        return NodeReport(
            environment=environment.collect(allocation.of_process().image_sha256),
            checks=(*checks, *model_check, *data_check),
            model=model_print,
            data=data_print,
        )

    def _looks(self) -> Iterator[list[PreflightCheck]]:
        self.doing = "asking the GPUs"
        if self._plan.device is Device.CUDA:
            yield list(_gpus(self._plan, [part for _, part in self._parts]))
        self.doing = "looking at its disks and network"
        yield [_engine(self._plan)]
        yield [_disk("run_dir", self._run_dir.root), _disk("cache", cache_dir())]
        yield [self._shm(), _ports(self._host)]
        if self._plan.interface:
            yield [_interface(self._plan.interface)]

    def _shm(self) -> PreflightCheck:
        ranks = sum(self._plan.ranks_a_part(replica) for replica, _ in self._parts)
        several = ranks > len(self._parts)
        least = LEAST_SHM_OF_SEVERAL_RANKS if several else LEAST_SHM
        size = shutil.disk_usage(SHM)
        text = f"{SHM} has {_mib(size.free)} free of {_mib(size.total)}"
        if size.free < least:
            text += f"; {_mib(least)} needed. Is the host's bound into the container, and empty?"
        return _check("shm", size.free >= least, text, size.free / MIB, "MiB")

    def _model(self) -> tuple[list[PreflightCheck], str | None]:
        if self._model_path is None:
            return [], None
        path = self._model_path
        if mistakes := model.check(path):
            advice = "Is it on a file system that all nodes share? The site's models: say where"
            return [_check("model", False, f"{'; '.join(mistakes)}. {advice}")], None
        try:
            told, digest = fingerprint(path)
        except OSError as error:
            text = f"{error.filename or path}: {error.strerror}"
            return [_check("model", False, text)], None
        return [_check("model", True, f"{told}: {digest[:12]}")], digest

    def _data(self) -> tuple[list[PreflightCheck], str | None]:
        dataset = self._plan.dataset
        if not dataset.path:
            return [], None
        path = Path(dataset.path)
        try:
            digest = hashes.kept([path], lambda: hashes.sha256_of(path))
        except OSError as error:
            return [_check("data", False, f"{path}: {error.strerror}")], None
        right = dataset.sha256 in ("", digest)
        text = f"{path}: sha256 {digest[:12]}"
        text += "" if right else f", and {dataset.name} has {dataset.sha256[:12]}"
        return [_check("data", right, text)], digest


def fingerprint(path: Path) -> tuple[str, str]:
    """How a model folder's files were read, in words, and the sha256 of what was read.

    Large ones are read in part: pieces all over each file, with its size. Raises OSError.
    """
    files = sorted(model.files(path))
    size = sum(file.stat().st_size for file in files)
    if size <= WHOLE_HASH_BYTES:
        return f"{_mib(size)} hashed whole", model.model_hash(path)
    digest = hashlib.sha256()
    for file in files:
        length = file.stat().st_size
        digest.update(f"{file.name} {length}\n".encode())
        number = max(2, NUM_PIECES * length // size)
        with file.open("rb") as content:
            for piece in range(number):
                content.seek(max(0, length - PIECE_BYTES) * piece // (number - 1))
                digest.update(content.read(PIECE_BYTES))
    return f"{_mib(size)}, of which {NUM_PIECES} pieces were hashed", digest.hexdigest()


def _engine(plan: Plan) -> PreflightCheck:
    if plan.engine.kind is EngineKind.REPLAY:
        return _check("engine", True, "the replay engine")
    try:
        wire.check_installed()
    except SutError as error:
        return _check("engine", False, str(error))
    return _check("engine", True, f"vLLM {wire.VLLM_VERSION}")


def _gpus(plan: Plan, parts: list[Part]) -> Iterator[PreflightCheck]:
    used = sorted({gpu for part in parts for gpu in part.gpus})
    try:
        cuda = gpus.look()
    except gpus.CudaError as error:
        yield _check("gpus", False, f"{error}. A run for GPUs never falls back to the CPU")
        return
    names = sorted({gpu.name for gpu in cuda.gpus})
    text = f"{len(cuda.gpus)} visible ({', '.join(names)}), {len(used)} used"
    missing = [gpu for gpu in used if gpu >= len(cuda.gpus)]
    if missing:
        text += "; the job got too few. Does its gres ask for them?"
    yield _check("gpus", not missing, text, len(cuda.gpus), "GPUs")
    yield _driver(cuda, _torch_cuda() if plan.engine.kind is EngineKind.VLLM else None)
    for each in (cuda.gpus[gpu] for gpu in used if gpu not in missing):
        yield _free_gpu(each, utilization(plan.engine.extra_args))


def _driver(cuda: gpus.Cuda, built_for: tuple[int, int] | str | None) -> PreflightCheck:
    text = f"driver {cuda.driver} runs CUDA up to {cuda.version[0]}.{cuda.version[1]}"
    if isinstance(built_for, str):
        return _check("driver", False, f"{text}; {built_for}")
    if built_for is None:
        return _check("driver", True, text)
    # Within a major version an older driver will do.
    well = cuda.version[0] >= built_for[0]
    text += f"; torch is built for {built_for[0]}.{built_for[1]}"
    if not well:
        text += f". Update the driver, or use an image of CUDA {cuda.version[0]}"
    return _check("driver", well, text)


def _torch_cuda() -> tuple[int, int] | str:
    """The CUDA that torch is built for, without importing it: that takes long. In words, why it
    is not known."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    version = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    if not version.get("cuda"):
        return f"torch {version['__version__']} is built for the CPU. Use the CUDA image"
    major, minor = str(version["cuda"]).split(".")[:2]
    return int(major), int(minor)


def _free_gpu(gpu: gpus.Gpu, share: float) -> PreflightCheck:
    least = share * gpu.memory_mib
    text = f"{gpu.uuid}: {gpu.free_mib:,} of {gpu.memory_mib:,} MiB free"
    if gpu.pids:
        text += f", and other processes compute on it: {', '.join(map(str, gpu.pids))}"
    elif gpu.free_mib < least:
        text += f"; vLLM takes {least:,.0f}. Something else uses it: nvidia-smi on the host"
    well = not gpu.pids and gpu.free_mib >= least
    return _check("gpu_free", well, text, gpu.free_mib, "MiB")


def _disk(name: str, folder: Path) -> PreflightCheck:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return _check(name, False, f"{folder}: can't be written: {error.strerror}")
    text = f"{folder}: {_mib(free)} free"
    if free < LEAST_DISK:
        text += f"; {_mib(LEAST_DISK)} needed"
    return _check(name, free >= LEAST_DISK, text, free / MIB, "MiB")


def _ports(host: str) -> PreflightCheck:
    try:
        network.free_port(host)
    except SutError as error:
        return _check("ports", False, str(error))
    return _check("ports", True, f"ports of {host} can be bound")


def _interface(name: str) -> PreflightCheck:
    try:
        address = network.address_of(name)
    except SutError as error:
        return _check("interface", False, str(error))
    up = network.is_up(name)
    return _check("interface", up, f"{name}, {address}, is {'up' if up else 'down'}")


def _check(
    name: str, ok: bool, text: str, measured: float | None = None, unit: str = ""
) -> PreflightCheck:
    rounded = None if measured is None else round(measured, 3)
    return PreflightCheck(name=name, ok=ok, text=text, measured=rounded, unit=unit)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / MIB:,.0f} MiB" if num_bytes < 10 * GIB else f"{num_bytes / GIB:,.0f} GiB"
