"""``python -m sut.cancel RUN``: end a run that is waiting or running."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

from sut.cluster import runs, sbatch, slurm
from sut.command import Parser, command_of_run
from sut.errors import CANCELLED, EXIT_VALID, InputError, RunError, quoted
from sut.launch import ending, node
from sut.launch.options import add_runs, find_run, shared
from sut.machine import processes
from sut.plan.plan import load_plan
from sut.results import attempts, record
from sut.rundir import RunDir
from sut.watch import notify

START_S = 30.0
END_S = 20.0  # of a job that has hardly started
POLL_S = 0.2


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m sut.cancel",
        description="End a run: scancel for a Slurm job, SIGTERM for a run on this machine. The "
        "run stops its engines and writes its record.",
        epilog="exit codes: 0 the run was asked to end, 2 it is not running, 3 Slurm refused",
        examples=("latest", "4711"),
        parents=[shared("site", "root")],
    )
    add_runs(parser)
    options = parser.parse(argv)
    print(cancel(find_run(options.run, options)))
    return EXIT_VALID


def cancel(run: RunDir) -> str:
    """End a run. Returns what was done. Raises InputError if it is not running, SutError if Slurm
    refuses."""
    if job := _job(run):
        slurm.cancel(job)
        command = " ".join(job.cancel_command)
        if job.state in slurm.WAITING:
            _record_unstarted(run, job.job_id)
            notify.send(run)
            return f"cancelled job {job.job_id}, which had not started ({command}): {run}"
        if _is_finished(run):
            end = _end(record.read(run.record))
            what = "was ending already" if job.state == slurm.COMPLETING else "is ended"
            return f"job {job.job_id} {what} ({command}); its run {end}: {run}"
        if job.state == slurm.COMPLETING:
            return f"job {job.job_id} was ending already ({command})\n{_follow(run)}"
        _record_unbegun(run, job)
        return f"cancelled job {job.job_id} on {job.nodes} ({command})\n{_follow(run)}"
    if not _is_finished(run) and (pid := _process(run)) is not None:
        if not ending.ask(run, pid, signal.SIGTERM):
            return f"the run was cancelled already and is ending (process {pid})\n{_follow(run)}"
        return f"cancelled the run on this machine (SIGTERM to process {pid})\n{_follow(run)}"
    raise InputError(
        f"the run is not active ({run}): {_state(run)}", hint=f"python -m sut.watch {quoted(run)}"
    )


def _record_unstarted(run: RunDir, job_id: str) -> None:
    """Record the end of a run whose job never starts: nothing else would."""
    if attempts.has_record(run):
        return
    plan = load_plan(run.plan)
    hint = f"to start it: {sbatch.continuing(plan, run)}"
    error = RunError(f"job {job_id} was cancelled before it started", hint=hint, code=CANCELLED)
    ending.close(plan, run, ending.attempt_of(plan, job_id), error)


def _record_unbegun(run: RunDir, job: slurm.JobState) -> None:
    """Record the end of a run whose job was cancelled in its first moment, if its batch script had
    not yet begun to: nothing else would. Waits for the end of a job without any sign of its run."""
    deadline = time.monotonic() + END_S
    while not run.progress.is_file() and not attempts.has_record(run):
        found = slurm.job_state(job.job_id, job.cluster)
        if found is not None and not found.alive:
            plan = load_plan(run.plan)
            error = node.ended_by_slurm(plan, run, job.job_id, found.state)
            if error is not None:
                ending.close(plan, run, ending.attempt_of(plan, job.job_id), error)
                notify.send(run)
            return
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)


def _job(run: RunDir) -> slurm.JobState | None:
    """The Slurm job of a run, if it can still run. A job's number may belong to another job: a
    local run's is a process id."""
    job_id = runs.job_of(run)
    job = slurm.job_state(job_id, runs.cluster_of(run)) if job_id else None
    if job is None or not job.alive:
        return None
    if job.comment:
        return job if RunDir(job.comment).root == run.root else None
    return job if load_plan(run.plan).slurm is not None else None


def _process(run: RunDir) -> int | None:
    """The run's process on this machine, once it handles SIGTERM: until then it ignores the
    signal, and its job would end without a record."""
    deadline = time.monotonic() + START_S
    while True:
        pid = processes.running("sut.run", str(run))
        job = " ".join(processes.arguments(int(runs.job_of(run) or 0)))
        if pid is not None and processes.handles(pid, signal.SIGTERM):
            return pid
        if (pid is None and str(run.job) not in job) or time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)


def _follow(run: RunDir) -> str:
    record = f"  record  {run.record}, when its engines have stopped"
    return f"{record}\n  watch   python -m sut.watch {quoted(run)}"


def _is_finished(run: RunDir) -> bool:
    """Whether nothing is left to cancel: no attempt continues a completed run, which may still be
    writing its report."""
    return attempts.has_record(run) and not attempts.was_interrupted(run)


def _state(run: RunDir) -> str:
    if not run.record.is_file():
        return f"no job of it, and no process on {os.uname().nodename}"
    return f"it {_end(record.read(run.record))}"


def _end(found: record.Record) -> str:
    if found.failure is not None and found.failure.code == CANCELLED:
        return "was cancelled already"
    return f"has ended, {found.word}"


if __name__ == "__main__":
    sys.exit(main())
