"""The files and folders of a run, as this machine sees them before submission."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sut.cluster import container as containers
from sut.errors import Errors, InputError, other_folder
from sut.inputs import cache, hashes, model, model_config
from sut.launch.finding import Finding
from sut.plan.benchmark import EngineKind
from sut.plan.fit import Fit
from sut.plan.plan import Plan
from sut.plan.resolve import GET_INPUTS
from sut.plan.site import Container
from sut.rundir import MIN_FREE
from sut.units import quantity

_MAX_LINKS = 40  # as the kernel follows
HASHED_BYTES = 2**30  # a larger data file takes too long here; preflight hashes it
# Each machine of a cluster has its own.
OWN_FOLDERS = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")))
TRIED = ".sut-"  # begins the name of a folder that a check makes and removes
_SIF_MAGIC, _SIF_OFFSET = b"SIF_MAGIC", 32


def check(plan: Plan, run_root: Path) -> Iterator[Finding]:
    """Check what a run reads and writes; ``run_root`` is where its run directory will be."""
    container = plan.container
    if container is not None:
        yield _input("image", plan, container.image, lambda it: _image(plan, container, it))
    if plan.model.path:
        yield _input("model", plan, plan.model.path, lambda it: _model(plan, it))
    if plan.engine.kind is EngineKind.VLLM:
        yield _engine(plan)
        if plan.fit is not None:
            yield _memory(plan.fit)
    if plan.dataset.path:
        yield _input("data", plan, plan.dataset.path, lambda it: _data(plan, it))
    if container is not None and container.binds:
        yield _binds(plan, container)
    yield _folder("run root", plan, run_root, "--root /path")
    try:
        yield _folder("cache", plan, cache.cache_of(plan), "--set site.cache=/path")
    except InputError as error:
        found = Finding("cache", plan.cache)
        found.problems.append(error)
        yield found


def _input(name: str, plan: Plan, path: str, look: Callable[[Finding], None]) -> Finding:
    """A check of a file or folder, unless it is on the nodes only."""
    found = Finding(name, path)
    if _is_node_local(plan, Path(path)):
        return Finding(name, f"{path}: on compute nodes only (site.node_local)", made=False)
    look(found)
    if not found.problems and _is_own(plan, Path(path)):
        found.problems.add(
            f"{name} {path} is on this machine's own disk, where no other node sees it",
            hint=f"move it to a shared file system{_if_node_local(plan, path)}",
        )
    return found


def _image(plan: Plan, container: Container, found: Finding) -> None:
    path = Path(container.image)
    try:
        with path.open("rb") as file:
            file.seek(_SIF_OFFSET)
            is_sif = file.read(len(_SIF_MAGIC)) == _SIF_MAGIC
        found.text += f" ({quantity(path.stat().st_size / 2**30, 'GiB')})"
    except OSError as error:
        found.problems.add(
            f"cannot read the image ({path}): {error.strerror}",
            hint="build it with containers/build.sh (docs/images.md), or set another: "
            f"--set site.container.image=FILE{_if_node_local(plan, str(path))}",
        )
        return
    if plan.slurm is None and shutil.which(container.command) is None:
        found.problems.add(
            f"{container.command} was not found on this machine",
            hint="install it, name another program (--set site.container.command=singularity), or "
            "run without a container: --set site.container=null",
        )
    if not is_sif:
        found.problems.add(
            f"{path} is not an Apptainer image (SIF)",
            hint="build it with containers/build.sh (docs/images.md)",
        )


def _model(plan: Plan, found: Finding) -> None:
    path = Path(plan.model.path)
    hint = f"""{_download(plan)}--set 'site.models."{plan.model.name}"=/path'"""
    for problem in model.check(path):
        found.problems.add(
            f"model {plan.model.name}: {problem}", hint=hint + _if_node_local(plan, str(path))
        )
    if plan.container is not None and not found.problems:
        _check_links(plan, plan.container, found.problems)


def _engine(plan: Plan) -> Finding:
    """What the plan's resolution has checked: it raises what it finds."""
    size = None if plan.model.embedded else model_config.size(Path(plan.model.path))
    if plan.model.embedded or (size is not None and size.num_heads):
        return Finding("engine", "its settings suit vLLM's options and the model's config.json")
    why = "this machine cannot read its config.json"
    if size is not None:
        why = "its config.json does not give the number of attention heads"
    return Finding("engine", f"not checked against the model: {why}", made=False)


def _memory(fit: Fit) -> Finding:
    unknown = f"not checked: {'; '.join(fit.not_checked)}" if fit.not_checked else ""
    return Finding("memory", "; ".join(filter(None, (fit.text, unknown))), made=not unknown)


def _check_links(plan: Plan, container: Container, problems: Errors) -> None:
    """The container sees a linked file only if its target is bound too."""
    folder = Path(plan.model.path)
    seen = [Path(each) for each in containers.readable(plan, container)]
    unseen = {file: target for file in model.files(folder) if (target := _unseen(file, seen))}
    if not unseen:
        return
    file, target = next(iter(unseen.items()))
    binds = dict.fromkeys([*container.binds, *(str(each.parent) for each in unseen.values())])
    hint = f"--set 'site.container.binds=[{', '.join(binds)}]'"
    if not target.exists():  # a relative link in a folder that is itself a link
        setting = f'site.models."{plan.model.name}"={folder.resolve()}'
        hint = f"give the folder itself: --set '{setting}'"
    problems.add(f"{file} is a link to {target}, which the container does not see", hint=hint)


def _unseen(path: Path, seen: Sequence[Path]) -> Path | None:
    """Where ``path`` leads to in a container that sees ``seen`` at their places, if it sees nothing
    there. Links are followed as in the container: from the place where a folder is bound, not from
    its place on the host."""
    for _ in range(_MAX_LINKS):
        roots = [each for each in seen if path.is_relative_to(each)]
        if not roots or not os.path.lexists(path):
            return path
        root = max(roots, key=lambda each: len(each.parts))
        below = (each for each in (*reversed(path.parents), path) if each.is_relative_to(root))
        link = next((each for each in below if each != root and each.is_symlink()), None)
        if link is None:
            return None
        target = link.parent / os.readlink(link) / path.relative_to(link)
        path = Path(os.path.normpath(target))
    return path


def _data(plan: Plan, found: Finding) -> None:
    path, dataset = Path(plan.dataset.path), plan.dataset
    hint = f"""{_download(plan)}--set 'site.datasets."{dataset.name}"=/path'"""
    try:
        with path.open("rb"):
            size = path.stat().st_size
        digest = "" if size > HASHED_BYTES else hashes.kept([path], lambda: hashes.sha256_of(path))
    except OSError as error:
        found.problems.add(
            f"cannot read data set {dataset.name} ({path}): {error.strerror}",
            hint=hint + _if_node_local(plan, str(path)),
        )
        return
    found.text += f" (sha256 {digest[:12]})" if digest else ""
    if digest and dataset.sha256 not in ("", digest):
        found.problems.add(
            f"{path} is not data set {dataset.name}: its sha256 is {digest[:12]}, not "
            f"{dataset.sha256[:12]}",
            hint=f"""{hint}; or run it unofficially: --set 'dataset.sha256=""'""",
        )


def _download(plan: Plan) -> str:
    mlcommons = f"download it ({GET_INPUTS}), or " if plan.dataset.sha256 else ""
    return f"{mlcommons}correct its path: "


def _binds(plan: Plan, container: Container) -> Finding:
    found = Finding("binds", ", ".join(container.binds))
    for each in container.binds:
        if not _is_node_local(plan, Path(each)) and not os.path.exists(each):
            found.problems.add(
                f"container.binds: {each}: no such file or folder",
                hint=f"correct container.binds in the file of site {plan.site}"
                f"{_if_node_local(plan, each)}",
            )
    return found


def _folder(name: str, plan: Plan, folder: Path, other: str) -> Finding:
    """A folder that the run writes to and creates if it does not exist. ``other`` is the option
    for another one."""
    if _is_node_local(plan, folder) and name != "run root":
        return Finding(name, f"{folder}: on compute nodes only (site.node_local)", made=False)
    found = Finding(name, str(folder))
    existing = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    problem, cause = _refusal(existing)
    hint = other_folder(cause, other)
    if not problem and _is_own(plan, folder) and name == "run root":
        problem = "it is on this machine's own disk, where no other node sees it"
        hint = f"use a folder on a shared file system: {other}"
    if problem:
        found.problems.add(f"cannot use {name} {folder}: {problem}", hint=hint)
    return found


def _refusal(folder: Path) -> tuple[str, int | None]:
    """Why a run cannot write to ``folder``, and the errno; empty where it can. A folder in it is
    tried: for root and on network file systems the permissions do not decide, and some file
    systems report no size."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=TRIED):
            found = os.statvfs(folder)
    except OSError as error:
        return f"cannot create a folder in {folder}: {error.strerror}", error.errno
    free = found.f_bavail * found.f_frsize
    if found.f_blocks and free < MIN_FREE:
        text = f"{free / 2**20:,.0f} MiB free; {MIN_FREE / 2**20:,.0f} MiB needed"
        return text, errno.ENOSPC
    return "", None


def _is_node_local(plan: Plan, path: Path) -> bool:
    return any(path.is_relative_to(each) for each in plan.node_local)


def _is_own(plan: Plan, path: Path) -> bool:
    """Whether only this machine has ``path``, and the run is on others."""
    if plan.slurm is None:
        return False
    here = socket.gethostname().partition(".")[0]
    if here in {node.name for node in (*plan.candidates, *plan.nodes)}:
        return False
    return any(path.is_relative_to(each) for each in OWN_FOLDERS)


def _if_node_local(plan: Plan, path: str) -> str:
    """What to do about a path that only compute nodes have."""
    if plan.slurm is None:
        return ""
    folder = Path(path).parent
    return f"; if only compute nodes have it: --set 'site.node_local=[{folder}]'"
