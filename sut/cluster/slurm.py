"""Slurm's commands: the only module that runs them.

Numbers and times that nothing computes with are Slurm's own text.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from sut.cluster import allocation
from sut.errors import SutError
from sut.values import Struct

_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
# [days-]hours:minutes[:seconds], days-hours, or minutes[:seconds].
_TIME = re.compile(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", re.ASCII)

# Slurm waits for the job's processes, or returns it to the queue after that.
COMPLETING = "COMPLETING"
# Every state of https://slurm.schedmd.com/job_state_codes.html is in one of these sets. A job in a
# state that this program does not know runs or can still run.
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"}
    | {"OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"}
)
# States of a job before its first or its next start.
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "EXPEDITING", "POWER_UP_NODE", "REQUEUED", "REQUEUE_FED"}
    | {"REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
# Why a job that is COMPLETING ends, in the words of squeue, as the state that it will have.
_ENDING = {"TimeLimit": "TIMEOUT", "NodeDown": "NODE_FAIL", "OutOfMemory": "OUT_OF_MEMORY"}
ANSWER_S = 30.0  # a command without an answer counts as failed
_ASK_AT_END_S = 5.0  # KillWait, by default 30 s, is all the time that the end of a job has
# States of a job that has its nodes.
ACTIVE = frozenset(
    {"RUNNING", COMPLETING, "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
    | {"UPDATE_DB"}
)


class JobState(Struct, frozen=True, kw_only=True):
    """A job in Slurm's words. ``reason`` is why it waits; ``since`` and ``start`` are the local
    times of its submission and its (expected) start. Unknown fields are empty. ``in_queue`` is
    false where only accounting knows the job: its rows can be late, or never end."""

    job_id: str
    state: str  # e.g. PENDING
    reason: str = ""
    since: str = ""
    start: str = ""
    nodes: str = ""
    comment: str = ""
    in_queue: bool = True
    cluster: str = ""  # empty: this machine's

    @property
    def alive(self) -> bool:
        return self.state not in ENDED

    @property
    def cancel_command(self) -> list[str]:
        return cancel_command(self.job_id, self.cluster)


def is_here() -> bool:
    return shutil.which("sbatch") is not None


def setting(name: str, cluster: str = "") -> str:
    """A value of slurm.conf, e.g. ClusterName; empty if Slurm does not answer."""
    for line in _output(["scontrol", *_of(cluster), "show", "config"]).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip()
    return ""


def cluster_name() -> str:
    return setting("ClusterName")


def node_names() -> set[str]:
    """Every node of the cluster; empty if Slurm does not answer."""
    return set(_output(["sinfo", "--noheader", "--Node", "--format=%N"]).split())


def minutes(limit: str) -> int | None:
    """``1-02:00:00``, ``4:00:00`` or ``30:00`` in minutes; None if there is no limit."""
    found = _TIME.fullmatch(limit)
    if found is None:
        return None
    days, first, second, _ = (int(part or 0) for part in found.groups())
    if found[1] is None and found[4] is None:
        return first
    return (days * 24 + first) * 60 + second


def number(text: str) -> int | None:
    """A count that Slurm printed; None for any other text."""
    return int(text) if _NUMBER.fullmatch(text) else None


def show(kind: str, *names: str, cluster: str = "") -> list[dict[str, str]]:
    """What ``scontrol show`` prints about each partition, node or reservation, by Slurm's keys;
    empty if Slurm does not answer or does not know one of ``names``."""
    command = ["scontrol", *_of(cluster), "--all", "--oneliner", "show", kind, *names]
    lines = _output(command).splitlines()
    # Only values of free text, e.g. OS, contain spaces.
    pairs = ([word.partition("=") for word in line.split() if "=" in word] for line in lines)
    return [{key: _known(value) for key, _, value in each} for each in pairs if each]


def accounting(entity: str, *columns: str, where: Sequence[str] = ()) -> list[list[str]]:
    """Rows of ``sacctmgr show``; empty if accounting does not answer."""
    command = ["sacctmgr", "--noheader", "--parsable2", "show", entity, *where]
    lines = _output([*command, f"format={','.join(columns)}"]).splitlines()
    rows = [line.split("|") for line in lines]
    return [row for row in rows if len(row) == len(columns)]


def job_state(job_id: str, cluster: str = "") -> JobState | None:
    """The job from the queue, or from accounting once it has left the queue; None if Slurm does
    not know it or does not answer. ``cluster`` is empty for this machine's."""
    squeue = ["squeue", "--noheader", "--states=all", "--format=%T|%r|%V|%S|%N|%k"]
    sacct = ["sacct", "--noheader", "--parsable2", "--allocations"]
    sacct += ["--format=State,Submit,Start,NodeList,Comment"]
    # slurmctld keeps a finished job for minutes, with its comment, which accounting may lack.
    for command, num_fields in ((squeue, 6), (sacct, 5)):
        lines = _output([*command, *_of(cluster), f"--jobs={job_id}"]).splitlines()
        rows = [line.split("|", num_fields - 1) for line in lines]
        found = [
            _job_of(job_id, row, cluster, in_queue=command is squeue)
            for row in rows
            if len(row) == num_fields
        ]
        # A requeued job has a row for each of its starts, oldest first.
        if found:
            return found[-1]
    return None


def ending(job_id: str) -> str:
    """The state in which a job ends or has ended, e.g. CANCELLED; PREEMPTED also for one that goes
    back to the queue. Empty for a job that Slurm does not end, and if Slurm does not answer."""
    rows = _output(
        ["squeue", "--noheader", "--states=all", "--format=%T|%r", f"--jobs={job_id}"],
        _ASK_AT_END_S,
    ).splitlines()
    state, _, reason = rows[-1].partition("|") if rows else ("", "", "")
    if state != COMPLETING:
        return state if state in ENDED else ""
    if is_preempted(job_id, _ASK_AT_END_S):
        return "PREEMPTED"
    if reason in _ENDING:
        return _ENDING[reason]
    sacct = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=State"]
    # A job that lost a node has a row for its time before (RESIZING), as the first.
    rows = _output([*sacct, f"--jobs={job_id}"], _ASK_AT_END_S).splitlines()
    state = rows[-1].partition(" ")[0] if rows else ""  # CANCELLED by 1500
    return state if state in ENDED else ""


def _job_of(job_id: str, row: Sequence[str], cluster: str, *, in_queue: bool) -> JobState:
    state, *reason, since, start, nodes, comment = map(_known, row)
    return JobState(
        job_id=job_id,
        state=state.partition(" ")[0],  # CANCELLED by 1500
        reason="".join(reason),
        since=since,
        start=start,
        nodes=nodes,
        comment=comment,
        in_queue=in_queue,
        cluster=cluster,
    )


def command_of(job_id: str) -> str:
    """The batch script of a job in the queue, in some versions of Slurm with its arguments; empty
    if Slurm does not answer."""
    return _output(["squeue", "--noheader", "--format=%o", f"--jobs={job_id}"]).strip()


def has_steps(job_id: str) -> bool:
    """Whether a step of the job runs, other than its script."""
    steps = _output(["squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i"])
    return any(step.rpartition(".")[2].isdecimal() for step in steps.split())


def forwarded_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that :mod:`sut.cluster.allocation` reads and Slurm does not set; empty outside
    of a job. Raises SutError if Slurm cannot expand its list of nodes."""
    node_list = environment.get("SLURM_JOB_NODELIST", "")
    if not node_list or allocation.NODES in environment:
        return {}
    names = _output(["scontrol", "show", "hostnames", node_list]).split()
    if not names:
        raise SutError(
            f"scontrol cannot expand SLURM_JOB_NODELIST={node_list}",
            hint="check that slurmctld answers: scontrol ping",
            code="slurm",
        )
    return {allocation.NODES: ",".join(names)}


def is_preempted(job_id: str, limit_s: float = 30.0) -> bool:
    """Whether another job takes the place of this one, which Slurm then requeues."""
    time = re.search(r"\bPreemptTime=(\S+)", _output(["scontrol", "show", "job", job_id], limit_s))
    return time is not None and _known(time[1]) != ""


def set_comment(job_id: str, comment: str) -> None:
    """Set the job's comment, which leads to its files. A failure is ignored."""
    _output(["scontrol", "update", f"JobId={job_id}", f"Comment={comment}"])


def cancel_command(job_id: str, cluster: str) -> list[str]:
    return ["scancel", *_of(cluster), job_id]


def cancel(job: JobState) -> None:
    """End the job, waiting or running. Raises SutError."""
    done = subprocess.run(job.cancel_command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        command = " ".join(job.cancel_command)
        raise SutError(f"{command} failed: {done.stderr.strip()}", code="slurm")


def requeue(job_id: str) -> None:
    """End the job's processes and return it to the queue. Raises SutError."""
    command = ["scontrol", "requeue", job_id]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise SutError(f"scontrol requeue {job_id} failed: {done.stderr.strip()}", code="slurm")


def _of(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def _known(text: str) -> str:
    return "" if text in ("N/A", "None", "(null)", "Unknown", "None assigned") else text


def _output(command: Sequence[str], limit_s: float | None = None) -> str:
    """A command's output; empty if it cannot start, fails or times out. A job's name or comment
    can be bytes that are no text."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_S if limit_s is None else limit_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
