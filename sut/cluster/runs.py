"""Find a run by its folder, by its name under a run root, or by its Slurm job."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from sut.cluster import slurm
from sut.errors import InputError, quoted
from sut.home import expanded
from sut.plan.plan import load_plan
from sut.rundir import RunDir

LATEST = "latest"  # a link under the run root
CAMPAIGN = "campaign.json"  # in the folder of a campaign
LOADGEN_LOG = "mlperf_log_detail.txt"  # in a folder of LoadGen's logs
JOB_ID = re.compile(r"\d+(?:_\d+)?")
_JOB_LINK = ".job-"
_FILE_OF_JOB = re.compile(r"(\d+(?:_\d+)?)_(?:submission\.sh|submitted\.pkl|\d+_log\.out)")


def at(path: Path | str) -> RunDir | None:
    """The run at a path: its folder or a file in it. None if there is no run."""
    path = expanded(path)
    run = RunDir(path.parent if path.is_file() else path)
    return run if run.plan.is_file() or run.record.is_file() else None


def find(name: str, root: Path) -> RunDir:
    """The run ``name``: a name under ``root`` (also ``latest``) or a Slurm job id. Raises
    InputError."""
    if run := at(root / name):
        return run
    if not JOB_ID.fullmatch(name):
        raise _not_found(name, root)
    if run := of_job(name, root):
        return run
    raise InputError(
        f"no run of job {name} in Slurm or under {root}",
        hint="give the run's folder, or the folder that contains it: --root DIR or SUT_RUN_ROOT",
    )


def names(root: Path) -> list[str]:
    """The runs under ``root``, newest first, without the link to the latest."""
    folders = (plan.parent for plan in root.glob("[!.]*/plan.json"))
    return sorted((each.name for each in folders if not each.is_symlink()), reverse=True)


def _not_found(name: str, root: Path) -> InputError:
    listing = f"python -m sut.history --root {quoted(root)}"
    if (link := root / name).is_symlink():  # latest, or of a job
        left = names(root)
        newest = f"the newest run that is left: {left[0]}; " if left else ""
        return InputError(
            f"{name} is {link.readlink().name}, whose folder {root} no longer has",
            hint=f"{newest}all runs: {listing}",
        )
    if (Path(name) / CAMPAIGN).is_file():
        return InputError(
            f"{name} is a campaign, not a run",
            hint=f"python -m sut.campaign {quoted(name)}; its runs: {listing}",
        )
    if (Path(name) / LOADGEN_LOG).is_file():
        return InputError(
            f"{name} is a folder of LoadGen's logs, not a run directory",
            hint=f"judge the logs: python -m sut.verdict {quoted(name)}",
        )
    if Path(name).is_file():
        return InputError(
            f"{name} is a file, not a run directory",
            hint=f"give the run's folder; list the runs: {listing}",
        )
    if Path(name).is_dir():
        return InputError(
            f"{name} is not a run directory: it has no plan.json",
            hint=f"list the runs: {listing}",
        )
    if "/" in name:
        return InputError(f"{name}: no such folder", hint=f"list the runs: {listing}")
    known = names(root)
    if not known:
        return InputError(
            f"{name}: no such run in the current folder, and no run under {root}",
            hint="start one: python -m sut.submit; or give the folder that contains the runs: "
            "--root DIR or SUT_RUN_ROOT",
        )
    close = [each for each in known if each.startswith(name)]
    close += difflib.get_close_matches(name, [LATEST, *known], n=1)
    return InputError(
        f"{name}: no such run in the current folder or under {root}",
        hint=f"did you mean {close[0]}? All runs: {listing}"
        if close
        else f"list the runs: {listing}",
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
        if any(RunDir(folder).job.glob(f"{job_id}_*")):
            return RunDir(folder)
    return None


def job_of(run: RunDir) -> str | None:
    """The newest job of a run, from the same files; without Slurm, a process id. None if there is
    none."""
    found: list[tuple[float, str]] = []
    try:
        for path in run.job.iterdir():
            if name := _FILE_OF_JOB.fullmatch(path.name):
                found.append((path.stat().st_mtime, name[1]))
        for link in run.root.parent.glob(f"{_JOB_LINK}*"):
            if link.readlink().name == run.root.name:
                found.append((link.lstat().st_mtime, link.name.removeprefix(_JOB_LINK)))
    except OSError:
        return None
    return max(found)[1] if found else None


def cluster_of(run: RunDir) -> str:
    """The cluster that a run's job was submitted to; empty for this machine's, or if unknown."""
    try:
        plan = load_plan(run.plan)
    except InputError:
        return ""
    return plan.slurm.clusters if plan.slurm else ""
