"""The command line of Apptainer or SingularityCE: the only module that knows them. Pure.

The container sees only what is bound. It has its own /tmp, home, environment and processes; when
its first process ends, the kernel ends the others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.cluster import allocation, claims, sbatch
from sut.inputs import cache
from sut.plan.plan import Plan
from sut.plan.site import Container, Device

# Variables of the host that a run needs in addition to those of its allocation.
FORWARDED = (
    *allocation.FORWARDED,
    claims.TOKEN,
    sbatch.SCRIPTS,
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "COLUMNS",
    "TERM",
)

# Apptainer reads its options, and variables for the container, from variables that begin so;
# SingularityCE from those with its own name.
SETTINGS = ("APPTAINER", "SINGULARITY")
KEPT_SETTINGS = {f"{name}_{folder}" for name in SETTINGS for folder in ("CACHEDIR", "TMPDIR")}


def argv(
    plan: Plan, run_dir: Path, image: Path, scratch: Path, command: Sequence[str]
) -> list[str]:
    """The command line that runs ``command`` of a run in ``image``, a SIF.

    ``scratch`` is an empty folder on this node, for the container's /tmp and home.
    """
    assert plan.container is not None
    words = [plan.container.command, "--silent", "exec", "--containall", "--workdir", str(scratch)]
    words += ["--pwd", "/tmp"]
    if plan.device is Device.CUDA:
        words += ["--nv"]
    for path, writable in binds(plan, plan.container, run_dir):
        words += ["--mount", _mount(path, writable)]
    return [*words, str(image), *command]


def binds(plan: Plan, container: Container, run_dir: Path) -> list[tuple[str, bool]]:
    """The host's paths to bind at the same place inside, and whether they are writable."""
    writable = [str(run_dir), str(cache.cache_of(plan)), "/dev/shm"]
    return [(path, False) for path in readable(plan, container)] + [
        (path, True) for path in writable
    ]


def readable(plan: Plan, container: Container) -> list[str]:
    """The host's paths that a run reads, bound at the same place inside."""
    paths = (_with_blobs(plan.model.path), plan.dataset.path, *container.binds)
    return [path for path in paths if path]


def _with_blobs(folder: str) -> str:
    """A snapshot in Hugging Face's cache, MODEL/snapshots/REVISION, is links to ../../blobs: then
    MODEL."""
    for each in (Path(folder), *Path(folder).parents):
        if each.parent.name == "snapshots" and each.parent.parent.name.startswith("models--"):
            return str(each.parent.parent)
    return folder


def environment(plan: Plan, host: Mapping[str, str], node: str) -> dict[str, str]:
    """The environment of the ``apptainer`` process, which gives the container its own. Of the
    caller's settings of Apptainer only the folders for its temporary files remain: binds, overlays
    and variables for the container would change what runs."""
    outside = {k: v for k, v in host.items() if not k.startswith(SETTINGS) or k in KEPT_SETTINGS}
    kept = {name: host[name] for name in FORWARDED if name in host}
    folder = cache.cache_of(plan)
    compiled = folder / "compiled" / node  # per node: some shared file systems cannot lock
    inside = {
        **kept,
        cache.CACHE_VARIABLE: str(folder),
        "HF_HOME": str(folder / "huggingface"),
        "VLLM_CACHE_ROOT": str(compiled / "vllm"),
        "TRITON_CACHE_DIR": str(compiled / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(compiled / "inductor"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    prefix = _program(plan).upper() + "ENV"
    return outside | {f"{prefix}_{name}": value for name, value in inside.items()}


def _program(plan: Plan) -> str:
    """``singularity`` where the site's command has that name: SingularityCE ignores Apptainer's
    variables, and Apptainer under that name knows SingularityCE's."""
    assert plan.container is not None
    name = Path(plan.container.command).name
    return "singularity" if name.startswith("singularity") else "apptainer"


def _mount(path: str, writable: bool) -> str:
    """A bind in the form of ``--mount``: CSV, so that any path is possible."""
    line = io.StringIO()
    fields = ["type=bind", f"source={path}", f"destination={path}"]
    csv.writer(line, lineterminator="").writerow(fields if writable else [*fields, "ro"])
    return line.getvalue()
