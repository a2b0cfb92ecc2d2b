"""Whether a run without a final record can still get one, from its folder, Slurm and this machine.

Every moment between the creation of a run's folder and its record has one of these states.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal

import msgspec

from sut.cluster import runs, slurm
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.values import UNDECODABLE, Struct

State = Literal["submitting", "pending", "active", "ended", "unknown"]
# The state of a run: the words of docs/run.md in lists, on the screen, in JSON and in metrics.
Word = Literal["pending", "starting", "running", "finished", "lost", "unknown"]


class Process(Struct, frozen=True, kw_only=True):
    """A process; ``started`` distinguishes it from a later one with its id."""

    host: str
    pid: int
    started: int | None  # clock ticks since the host's start
    namespace: int | None = None  # of process ids; a container has its own

    def lives(self) -> bool | None:
        """None for a process of another machine or container."""
        if self.host != socket.gethostname() or self.namespace not in (None, _namespace()):
            return None
        return self.started is not None and _started(self.pid) == self.started


class Liveness(Struct, frozen=True, kw_only=True):
    """``submitting``: the command that creates the run still works. ``ended``: nothing of the run
    is left, and ``why`` is how that is known. ``unknown``: it runs on another machine or cluster,
    or Slurm does not answer."""

    state: State
    why: str = ""
    job: slurm.JobState | None = None


def this_process() -> Process:
    return process(os.getpid())


def process(pid: int) -> Process:
    """A process of this machine."""
    return Process(
        host=socket.gethostname(), pid=pid, started=_started(pid), namespace=_namespace()
    )


def read(path: Path) -> Process | None:
    """A process from a file; None without a readable one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Process)
    except (OSError, *UNDECODABLE):
        return None


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def of_run(run: RunDir, plan: Plan) -> Liveness:
    # Runs of earlier versions have no submitter.
    job_id, submitter = runs.job_of(run), read(run.submitter)
    lives = submitter.lives() if submitter else None
    if job_id is None:
        if lives:
            return Liveness(state="submitting")
        if lives is None:
            return Liveness(state="unknown", why="no job is known for it")
        return Liveness(state="ended", why="the command that created it ended before submitting it")
    if plan.slurm is not None:
        return _of_job(job_id, plan.slurm.clusters)
    if lives is None and _host_of(submitter) != socket.gethostname():
        return Liveness(state="unknown", why=f"it runs on {_host_of(submitter) or 'some machine'}")
    if _is_controller(int(job_id.partition("_")[0]), run):
        return Liveness(state="active")
    return Liveness(state="ended", why="its process has ended")


def _of_job(job_id: str, cluster: str) -> Liveness:
    job = slurm.job_state(job_id, cluster)
    if job is None:
        why = f"Slurm does not know job {job_id} here (any more), or does not answer"
        return Liveness(state="unknown", why=why)
    if job.alive and not job.in_queue:
        why = f"job {job_id} is {job.state} in accounting, but not in the queue"
        return Liveness(state="unknown", why=why)
    on = f"job {job_id}" + (f" on {job.nodes}" if job.nodes else "")
    if job.state in slurm.WAITING:
        return Liveness(state="pending", job=job)
    if job.alive:
        return Liveness(state="active", job=job)
    unstarted = job.state == "CANCELLED" and not job.nodes
    why = f"{on} was cancelled before it started" if unstarted else f"{on} is {job.state}"
    return Liveness(state="ended", why=why, job=job)


def _host_of(submitter: Process | None) -> str | None:
    return submitter.host if submitter else None


def _is_controller(pid: int, run: RunDir) -> bool:
    """Whether a process is submitit's of this run on this machine."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(run.job) in words


def is_running(pid: int) -> bool:
    """Whether this machine has the process, and it has not ended."""
    return _started(pid) is not None


def _started(pid: int) -> int | None:
    try:
        # The second field, the name, may contain spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
