"""What Slurm is asked and told: the one place that runs its commands.

Numbers and times are Slurm's own text where nothing computes with them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from sut.cluster import allocation
from sut.errors import SutError
from sut.values import Struct

# What a job can be in and still run, or run again.
ALIVE = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING"}
    | {"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SIGNALING", "STAGE_OUT"}
)
# What a job can be in before its first start, or its next.
WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"})


class JobState(Struct, frozen=True, kw_only=True):
    """A job as Slurm sees it. ``reason`` is why it waits; ``since`` and ``start`` are Slurm's
    local times, of its submission and its (expected) start; empty where not known."""

    job_id: str
    state: str  # Slurm's word, e.g. PENDING
    reason: str = ""
    since: str = ""
    start: str = ""
    nodes: str = ""
    comment: str = ""

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


def is_here() -> bool:
    return shutil.which("sbatch") is not None


def cluster_name() -> str:
    """The cluster's name; empty where Slurm does not answer."""
    for line in _output(["scontrol", "show", "config"]).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "ClusterName":
            return value.strip()
    return ""


def node_names() -> set[str]:
    """Every node of the cluster; empty where Slurm does not answer."""
    return set(_output(["sinfo", "--noheader", "--Node", "--format=%N"]).split())


def job_state(job_id: str) -> JobState | None:
    """The job, from the queue or, once it has left it, from the accounts; None when Slurm knows
    no such job, or does not answer."""
    fields = "%T|%r|%V|%S|%N|%k"
    # slurmctld knows a job for minutes after its end, and its comment, which accounts may not keep.
    squeue = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", f"--format={fields}"]
    for line in _output(squeue).splitlines():
        state, reason, since, start, nodes, comment = line.split("|", 5)
        return JobState(
            job_id=job_id,
            state=state,
            reason=_known(reason),
            since=_known(since),
            start=_known(start),
            nodes=_known(nodes),
            comment=_known(comment),
        )
    columns = "State,Submit,Start,NodeList,Comment"
    sacct = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job_id}"]
    for line in _output([*sacct, f"--format={columns}"]).splitlines():
        state, since, start, nodes, comment = line.split("|", 4)
        return JobState(
            job_id=job_id,
            state=state.partition(" ")[0],  # CANCELLED by 1500
            since=_known(since),
            start=_known(start),
            nodes=_known(nodes),
            comment=comment,
        )
    return None


def handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What :mod:`sut.cluster.allocation` reads, for a process of a job; empty outside of one.

    Raises SutError where Slurm can't expand its own list of nodes.
    """
    node_list = environment.get("SLURM_JOB_NODELIST", "")
    if not node_list or allocation.NODES in environment:
        return {}
    names = _output(["scontrol", "show", "hostnames", node_list]).split()
    if not names:
        raise SutError(f"scontrol can't expand SLURM_JOB_NODELIST={node_list}", code="slurm")
    return {allocation.NODES: ",".join(names)}


def set_comment(job_id: str, comment: str) -> None:
    """Write the job's comment, by which its files are found. Only a help: it may fail."""
    _output(["scontrol", "update", f"JobId={job_id}", f"Comment={comment}"])


def requeue(job_id: str) -> None:
    """Put the job back into the queue; its processes are ended. Raises SutError."""
    done = subprocess.run(["scontrol", "requeue", job_id], capture_output=True, text=True)
    if done.returncode != 0:
        raise SutError(f"scontrol requeue {job_id}: {done.stderr.strip()}", code="slurm")


def _known(text: str) -> str:
    return "" if text in ("N/A", "None", "(null)", "Unknown", "None assigned") else text


def _output(command: Sequence[str]) -> str:
    """What a command prints; empty where it can't be run, fails or does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
