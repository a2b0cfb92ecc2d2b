"""One node's preflight: can its part of the run work there?

Every check reports what it found, also when it passes. :mod:`sut.serving.preflight` compares what
must be the same on all nodes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sut.cluster import allocation
from sut.errors import Errors, SutError
from sut.inputs import hashes, model
from sut.inputs.cache import cache_dir
from sut.machine import environment, network
from sut.machine.environment import Environment
from sut.plan import engine_args
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan
from sut.plan.site import Device
from sut.results.record import PreflightCheck
from sut.rundir import MIN_FREE, RunDir
from sut.serving import gpu_check, wire
from sut.units import quantity
from sut.values import Struct

MIB = 2**20
GIB = 2**30
MIN_SHM = 64 * MIB
MIN_SHM_OF_SEVERAL_RANKS = GIB  # ranks communicate through it
WHOLE_HASH_BYTES = GIB  # hashing a larger model whole takes too long here
NUM_PIECES = 128
PIECE_BYTES = MIB
SHM = Path("/dev/shm")


class NodeReport(Struct, frozen=True, kw_only=True):
    """What one node found. ``model`` and ``data`` are fingerprints, equal on all nodes."""

    environment: Environment
    checks: tuple[PreflightCheck, ...]
    model: str | None = None
    data: str | None = None


class NodeCheck:
    """The checks of this node. ``doing`` is the current step, ``report`` None until they end."""

    def __init__(
        self,
        plan: Plan,
        run_dir: RunDir,
        index: int,
        host: str,
        model_path: Path | None,
        *,
        warm: Collection[int] = (),
    ) -> None:
        """``warm`` are the sessions of this run's engines that an earlier run has started."""
        self.doing = "starting"
        self.report: NodeReport | None = None
        self._plan = plan
        self._run_dir = run_dir
        self._host = host
        self._model_path = model_path
        self._warm = warm
        self._parts = [
            (replica.index, part)
            for replica in plan.replicas
            for part in replica.parts
            if part.node == index
        ]

    def run(self) -> None:
        """Run every check, which takes seconds. A failed check does not raise."""
        checks = list(self._checks())
        self.doing = "reading the model"
        model_check, model_print = self._model()
        self.doing = "reading the data"
        data_check, data_print = self._data()
        self.doing = "reading the environment"
        self.report = NodeReport(
            environment=environment.collect(allocation.of_process().image_sha256),
            checks=(*checks, *model_check, *data_check),
            model=model_print,
            data=data_print,
        )

    def _checks(self) -> Iterator[PreflightCheck]:
        self.doing = "querying the GPUs"
        if self._plan.device is Device.CUDA:
            yield from gpu_check.checks(self._plan, [part for _, part in self._parts], self._warm)
        self.doing = "checking cores, disks and network"
        if cores := sorted({cpu for _, part in self._parts for cpu in part.cpus}):
            yield _cores(cores)
        yield _engine(self._plan)
        yield _disk("run_dir", self._run_dir.root)
        ours = _passes("cache", "", cache_dir)
        yield _disk("cache", cache_dir()) if ours.ok else ours
        yield self._shm()
        host = self._host
        yield _passes("ports", f"ports of {host} can be bound", lambda: network.free_port(host))
        if self._plan.interface:
            yield _interface(self._plan.interface)

    def _shm(self) -> PreflightCheck:
        ranks = sum(self._plan.ranks_per_part(replica) for replica, _ in self._parts)
        needed = MIN_SHM_OF_SEVERAL_RANKS if ranks > len(self._parts) else MIN_SHM
        size = shutil.disk_usage(SHM)
        text = f"{SHM}: {_size(size.free)} free of {_size(size.total)}"
        if size.free < needed:
            text += (
                f"; {_size(needed)} needed. Check that the container binds the host's {SHM}, and "
                "that nothing fills it"
            )
        return _space("shm", size.free, needed, text)

    def _model(self) -> tuple[list[PreflightCheck], str | None]:
        if self._model_path is None:
            return [], None
        path = self._model_path
        if errors := model.check(path):
            text = (
                f"{'; '.join(errors)}. Set the site's models to a folder on a file system that all "
                "nodes share"
            )
            return [PreflightCheck("model", ok=False, text=text)], None
        try:
            how, digest = fingerprint(path)
        except OSError as error:
            text = f"{error.filename or path}: {error.strerror}"
            return [PreflightCheck("model", ok=False, text=text)], None
        return [PreflightCheck("model", ok=True, text=f"{how}: {digest[:12]}")], digest

    def _data(self) -> tuple[list[PreflightCheck], str | None]:
        dataset = self._plan.dataset
        if not dataset.path:
            return [], None
        path = Path(dataset.path)
        try:
            digest = hashes.kept([path], lambda: hashes.sha256_of(path))
        except OSError as error:
            return [PreflightCheck("data", ok=False, text=f"{path}: {error.strerror}")], None
        ok = dataset.sha256 in ("", digest)
        text = f"{path}: sha256 {digest[:12]}"
        text += "" if ok else f"; {dataset.name} has {dataset.sha256[:12]}"
        return [PreflightCheck("data", ok=ok, text=text)], digest


def fingerprint(path: Path) -> tuple[str, str]:
    """How a model folder was hashed, in words, and the sha256.

    A folder over WHOLE_HASH_BYTES is hashed in pieces spread over every file, and the files' sizes.
    Raises OSError.
    """
    files = model.files(path)
    size = sum(file.stat().st_size for file in files)
    if size <= WHOLE_HASH_BYTES:
        return f"{_size(size)} hashed whole", model.model_hash(path)
    digest = hashlib.sha256()
    for file in files:
        length = file.stat().st_size
        digest.update(f"{model.name_in(path, file)} {length}\n".encode())
        number = max(2, NUM_PIECES * length // size)
        with file.open("rb") as content:
            for piece in range(number):
                content.seek(max(0, length - PIECE_BYTES) * piece // (number - 1))
                digest.update(content.read(PIECE_BYTES))
    return f"{_size(size)}, {NUM_PIECES} pieces of it hashed", digest.hexdigest()


def _passes(name: str, text: str, attempt: Callable[[], object]) -> PreflightCheck:
    """A check with ``text`` that fails with the error of ``attempt``."""
    try:
        attempt()
    except SutError as error:
        return PreflightCheck(name, ok=False, text=_one_line(error))
    return PreflightCheck(name, ok=True, text=text)


def _one_line(error: SutError) -> str:
    return str(error).replace("\nhint: ", "; ")


def _engine(plan: Plan) -> PreflightCheck:
    if plan.engine.kind is EngineKind.REPLAY:
        return PreflightCheck("engine", ok=True, text="the replay engine")
    refused = Errors()
    try:
        version = wire.installed()
        engine_args.check(plan.engine.extra_args, refused, version)
        refused.raise_all()
        text = "; ".join([f"vLLM {version}", *wire.remarks(plan)])
        return PreflightCheck("engine", ok=True, text=text)
    except SutError as error:
        return PreflightCheck("engine", ok=False, text=_one_line(error))


def _cores(used: list[int]) -> PreflightCheck:
    """The cores that the engines are bound to. A job may have fewer than its node."""
    usable = os.sched_getaffinity(0)
    missing = [cpu for cpu in used if cpu not in usable]
    text = f"{quantity(len(used), 'cores')} for the engines, {len(usable)} usable"
    if missing:
        text += (
            f"; not usable: {', '.join(map(str, missing))}. Correct cpus: of this node in the "
            "site's file, or ask for more: slurm.cpus_per_task"
        )
    return PreflightCheck("cores", not missing, text, measured=len(used), unit="cores")


def _disk(name: str, folder: Path) -> PreflightCheck:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return PreflightCheck(name, ok=False, text=f"{folder}: not writable: {error.strerror}")
    text = f"{folder}: {_size(free)} free"
    if free < MIN_FREE:
        text += f"; {_size(MIN_FREE)} needed"
    return _space(name, free, MIN_FREE, text)


def _space(name: str, free: int, needed: int, text: str) -> PreflightCheck:
    """A check of free bytes."""
    return PreflightCheck(name, free >= needed, text, measured=round(free / MIB, 3), unit="MiB")


def _interface(name: str) -> PreflightCheck:
    found = _passes("interface", name, lambda: network.address_of(name))
    if not found.ok:
        return found
    up = network.is_up(name)
    text = f"{name} ({network.address_of(name)}) is {'up' if up else 'down'}"
    return PreflightCheck("interface", ok=up, text=text)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / MIB:,.0f} MiB" if num_bytes < 10 * GIB else f"{num_bytes / GIB:,.0f} GiB"
