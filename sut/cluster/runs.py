"""Finds runs: by folder, by name under a site's run root, or by the Slurm job that runs them."""

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
    """The run called ``name``: its folder, its name under ``root``, or a Slurm job's id.

    Raises InputError where there is none.
    """
    for folder in (Path(name).expanduser(), root / name):
        if RunDir(folder).plan.is_file():
            return RunDir(folder)
    if JOB_ID.fullmatch(name):
        run = of_job(name, root)
        if run is not None:
            return run
        raise InputError(
            f"no run of job {name} is known: neither to Slurm nor under {root}. "
            "Give the run's folder, or where runs are kept: --site or --root"
        )
    raise InputError(
        f"{name}: no such run, here or under {root}. "
        f"python -m sut.history --root {root} lists the runs that are there"
    )


def job_link(root: Path, job_id: str) -> Path:
    """Where a batch script's job keeps a link to its run."""
    return root / f"{_JOB_LINK}{job_id}"


def of_job(job_id: str, root: Path) -> RunDir | None:
    """The run a job was submitted for: by the job's comment, else by the files that batch scripts
    and submitit keep under ``root``, newest run first."""
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
    """The newest job that was started for a run, by the same files; on a machine without Slurm
    that is a process. None where none is known."""
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
