"""A run's part on one node, on the host: start it, wait, and leave a record however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from sut import messages
from sut.cluster import allocation, claims, host, sbatch, slurm
from sut.cluster.allocation import Allocation
from sut.command import command_of_run
from sut.errors import (
    CANCELLED,
    EXIT_FAILED,
    EXIT_VALID,
    NO_RECORD,
    NODE_LOST,
    TRUNCATED,
    InputError,
    RunError,
    SutError,
    quoted,
)
from sut.launch import ending
from sut.plan.plan import Plan, load_plan
from sut.results import attempts, diagnosis
from sut.results.record import Attempt, Failure, Record
from sut.rundir import RunDir, write_atomic
from sut.values import UNDECODABLE

NOTIFY_S = 60.0  # sut.notify limits the command itself to less
# How Slurm ended a job, and the code of a run that could not write its record before.
_BY_SLURM = {
    "CANCELLED": ("was cancelled", CANCELLED),
    "PREEMPTED": ("was preempted by another job", CANCELLED),
    "TIMEOUT": ("reached its wall limit", TRUNCATED),
    "NODE_FAIL": ("lost a node", NODE_LOST),
}
_CODES = {signal.SIGTERM: CANCELLED, signal.SIGINT: CANCELLED, signal.SIGUSR2: TRUNCATED}


def launch(run_dir: str) -> None:
    """The function that submitit calls in its job. Exits with the code of :func:`run`.

    submitit's own handler of SIGUSR2 would requeue the job at the wall limit; :func:`host.wait`
    replaces it.
    """
    try:
        code = command_of_run(run)(RunDir(run_dir))
    finally:
        _notify(RunDir(run_dir))
    if code != EXIT_VALID:
        sys.exit(code)


def _notify(run_dir: RunDir) -> None:
    """On this machine; a Slurm job does it at the end of its script. In a process of its own,
    which cannot change the run's exit code."""
    try:
        if run_dir.notices.is_file() and load_plan(run_dir.plan).slurm is None:
            command = [sys.executable, "-m", "sut.notify", str(run_dir)]
            subprocess.call(command, timeout=NOTIFY_S)
    except (InputError, OSError, subprocess.TimeoutExpired) as error:
        messages.report(f"warning: nobody was notified: {error}")


def run(run_dir: RunDir) -> int:
    """Run this node's part to its end. Returns its exit code. Raises SutError, OSError.

    The first node leaves a record and a report also where the run could not start or was killed.
    Another node leaves its failure to start for the first.
    """
    plan, allocated = load_plan(run_dir.plan), here()
    if allocated.node > 0:
        return _follow(plan, run_dir, allocated)
    attempts.earlier(plan, run_dir)  # a complete run stays as it is
    claim = claims.take(run_dir, allocated.job_id, allocated.attempt)
    attempt, before = _attempt(allocated), _stamp(run_dir.record)
    try:
        code = host.run_node(run_dir, claim=claim.token)
    except SutError as error:
        close(plan, run_dir, attempt, error)
        raise
    if code != EXIT_VALID and (
        _stamp(run_dir.record) == before or not attempts.has_record(run_dir)
    ):
        cause = _of_other_node(run_dir, allocated) or _ended(plan, run_dir, allocated, code)
        closed = close(plan, run_dir, attempt, cause)
        code = code if closed is None else closed.exit_code
    if ending.report_is_missing(run_dir):
        _draw(plan, run_dir)
    return code


def close(plan: Plan, run_dir: RunDir, attempt: Attempt, error: SutError) -> Record | None:
    """Record that an attempt ended with ``error`` and without a record, and draw the report. None
    for a run that can have no further attempt: it stays as it is."""
    try:
        attempts.earlier(plan, run_dir)
    except InputError:
        return None
    return ending.close(plan, run_dir, attempt, error)


def close_unrecorded(run_dir: RunDir, here: Allocation, code: int | None = None) -> None:
    """Record an attempt whose step ended, with ``code`` if known, and left no record. Draw the
    report if the step ended before it did."""
    if not attempts.has_record(run_dir):
        plan = load_plan(run_dir.plan)
        cause = _of_other_node(run_dir, here) or _ended(plan, run_dir, here, code)
        close(plan, run_dir, _attempt(here), cause)
    ending.draw_if_missing(run_dir)


def _follow(plan: Plan, run_dir: RunDir, here: Allocation) -> int:
    try:
        code = host.run_node(run_dir)
    except SutError as error:
        _tell_head(run_dir, here, error)
        raise
    if code not in (EXIT_VALID, EXIT_FAILED):  # sut.run exits with 3 where it lost the head
        _tell_head(run_dir, here, _ended(plan, run_dir, here, code))
    return code


def _tell_head(run_dir: RunDir, here: Allocation, error: SutError) -> None:
    """The head, which waits for this node, records the cause."""
    failure = attempts.failure_of(error)
    path = run_dir.node_failure(here.key, here.nodes[here.node])
    with contextlib.suppress(OSError):
        write_atomic(path, msgspec.json.encode(failure))


def _of_other_node(run_dir: RunDir, here: Allocation) -> RunError | None:
    """Why another node ended the step: srun signals all tasks when one fails."""
    for name in here.nodes[1:]:
        with contextlib.suppress(OSError, *UNDECODABLE):
            content = run_dir.node_failure(here.key, name).read_bytes()
            failure = msgspec.json.decode(content, type=Failure)
            return RunError(failure.message, code=failure.code, node=name)
    return None


def here() -> Allocation:
    """This node of its job. Its names are unknown where Slurm does not answer."""
    try:
        forwarded = slurm.forwarded_env(os.environ)
    except SutError:  # host.run_node reports it
        forwarded = {}
    return allocation.of_process({**os.environ, **forwarded})


def _attempt(here: Allocation) -> Attempt:
    return Attempt(
        job_id=here.job_id,
        restart=here.attempt,
        nodes=here.nodes,
        started_utc=attempts.utc_now(),
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _ended(plan: Plan, run_dir: RunDir, here: Allocation, code: int | None) -> RunError:
    """Why a run has no record, as far as its exit code and Slurm show it."""
    node = here.nodes[here.node]
    number = None if code is None else _signal(code)
    if here.job_id and number is not signal.SIGUSR2:
        by_slurm = ended_by_slurm(plan, run_dir, here.job_id, slurm.ending(here.job_id))
        if by_slurm is not None:
            return by_slurm
    if number in _CODES:
        message = f"ended by {number.name} on {node} before the run began"
        hint = f"to continue: {sbatch.continuing(plan, run_dir)}"
        return RunError(message, hint=hint, code=_CODES[number], node=node)
    how = "its step ended" if code is None else f"exit code {code}"
    if number is not None:
        how = f"killed by {number.name}"
    failed = f"the run left no record on {node} ({how})"
    logs = run_dir.job_logs(here.node)
    if not logs:
        return RunError(failed, hint="read the output of its job", code=NO_RECORD, node=node)
    shown = diagnosis.of(*logs)
    return shown.error(failed, hint=f"less {quoted(shown.log)}", code=NO_RECORD, node=node)


def ended_by_slurm(plan: Plan, run_dir: RunDir, job_id: str, state: str) -> RunError | None:
    """Why a job in this state left no record; None if Slurm did not end it."""
    if state not in _BY_SLURM:
        return None
    what, code = _BY_SLURM[state]
    message = f"job {job_id} {what} before the run wrote its record"
    return RunError(message, hint=f"to continue: {sbatch.continuing(plan, run_dir)}", code=code)


def _signal(code: int) -> signal.Signals | None:
    """The signal in an exit code as a shell reports it."""
    try:
        return signal.Signals(code - 128)
    except ValueError:
        return None


def _draw(plan: Plan, run_dir: RunDir) -> None:
    """Draw the report of a run that could not: a signal to a whole step takes the image away from
    the run in it."""
    if plan.container is not None:
        with contextlib.suppress(SutError):
            host.run_node(run_dir, "sut.report")
    ending.draw_if_missing(run_dir)
