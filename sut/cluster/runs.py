"""Find a run by its folder, by its name under a run root, or by its Slurm job."""

from __future__ import annotations

import re
from pathlib import Path

from sut.cluster import slurm
from sut.errors import InputError
from sut.rundir import RunDir

JOB_ID = re.compile(r"\d+(?:_\d+)?")
_JOB_LINK = ".job-"
_FILE_OF_JOB = re.compile(r"(\d+(?:_\d+)?)_(?:submission\.sh|submitted\.pkl|\d+_log\.out)")


def find(name: str, root: Path) -> RunDir:
    """The run ``name``: a folder, a name under ``root``, or a Slurm job id. Raises InputError."""
    for folder in (Path(name).expanduser(), root / name):
        if RunDir(folder).plan.is_file():
            return RunDir(folder)
    if JOB_ID.fullmatch(name):
        run = of_job(name, root)
        if run is not None:
            return run
        raise InputError(
            f"no run of job {name} in Slurm or under {root}",
            hint="give the run's folder, or the run root: --site NAME or --root FOLDER",
        )
    raise InputError(
        f"{name}: no such run in the current folder or under {root}",
        hint=f"list runs with: python -m sut.history --root {root}",
    )


def job_link(root: Path, job_id: str) -> Path:
    return root / f"{_JOB_LINK}{job_id}"


def of_job(job_id: str, root: Path) -> RunDir | None:
    """The run of a job: from the job's comment, else from the files of batch scripts and submitit
    under ``root``, newest run first."""
    job = slurm.job_state(job_id)
    if job is not None and job.comment and RunDir(job.comment).plan.is_file():
        return RunDir(job.comment)
    link = job_link(root, job_id)
    if RunDir(link).plan.is_file():
        return RunDir(link)
    for folder in sorted(root.glob("*/"), reverse=True):
        if any(RunDir(folder).slurm.glob(f"{job_id}_*")):
            return RunDir(folder)
    return None


def job_of(run: RunDir) -> str | None:
    """The newest job of a run, from the same files; without Slurm, a process id. None if there is
    none."""
    found: list[tuple[float, str]] = []
    try:
        for path in run.slurm.iterdir():
            if name := _FILE_OF_JOB.fullmatch(path.name):
                found.append((path.stat().st_mtime, name[1]))
        for link in run.root.parent.glob(f"{_JOB_LINK}*"):
            if link.readlink().name == run.root.name:
                found.append((link.lstat().st_mtime, link.name.removeprefix(_JOB_LINK)))
    except OSError:
        return None
    return max(found)[1] if found else None
