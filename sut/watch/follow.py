"""Follow a run of this command: its progress, then its result."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

from rich.console import Console

from sut.cluster import liveness, sbatch
from sut.errors import CANCELLED, EXIT_FAILED, NO_RECORD, RunError
from sut.interrupts import Interrupt
from sut.launch import ending
from sut.launch.executor import Submitted
from sut.plan.plan import Plan
from sut.report.summary import summary
from sut.results import attempts, record
from sut.rundir import RunDir, tail
from sut.watch import notify
from sut.watch.observer import Observer
from sut.watch.screen import Screen

POLL_S = 0.2
LOG_LINES = 15
RECORD_BYTES = 64 * 1024  # enough for a record
SHARED_FILES_S = 5.0
EXIT_DETACHED = 130  # Ctrl-C: the run has no result yet


def follow(job: Submitted, plan: Plan, run_dir: RunDir, interrupt: Interrupt) -> int:
    """Show a job's progress until it ends, then its result. Returns the exit code."""
    if not until_ended(job, plan, run_dir, interrupt):
        return EXIT_DETACHED
    return show_result(job, plan, run_dir)


def until_ended(
    job: Submitted,
    plan: Plan,
    run_dir: RunDir,
    interrupt: Interrupt,
    console: Console | None = None,
) -> bool:
    """Show a job's progress until it ends, on standard output or ``console``. False if the user
    stopped following.

    Ctrl-C or SIGTERM cancels a run on this machine. A Slurm job continues: only its follower
    exits.
    """
    observer, cancelled = Observer(run_dir), False
    with Screen(console) as screen:
        while not job.done():
            screen.show(observer.look())
            if interrupt.asked and plan.slurm is not None:
                detached(job)
                return False
            if interrupt.asked and observer.pid is not None and not cancelled:
                cancelled = True
                _cancel(observer.pid)
            screen.wait(POLL_S)
    if plan.slurm is not None:
        _wait_for_record(run_dir)
    return True


def detached(job: Submitted) -> int:
    cancel = f"python -m sut.cancel {job.job_id}"
    print(f"\ndetached; the job continues. To cancel it: {cancel}", file=sys.stderr)
    return EXIT_DETACHED


def _cancel(pid: int) -> None:
    print("\ncancelling the run", file=sys.stderr)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _wait_for_record(run_dir: RunDir) -> None:
    """A shared file system may show a file of another node seconds late."""
    deadline = time.monotonic() + SHARED_FILES_S
    while not run_dir.record.is_file() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def show_result(job: Submitted, plan: Plan, run_dir: RunDir) -> int:
    """Print the result of a job that has ended. Returns its exit code."""
    if not close_if_unrecorded(job, plan, run_dir):
        return EXIT_FAILED
    if ending.report_is_missing(run_dir):
        ending.draw(run_dir)
    result = record.read(run_dir.record)
    internal = result.failure is not None and result.failure.code == "internal_error"
    last = tail(job.log, LOG_LINES)
    print(summary(result, run_dir, last if internal else ""))
    if notify.FAILED in last:
        problem = last[last.rindex(notify.FAILED) :].partition("\n")[0]
        print(f"warning: {problem} (its output: {job.log})", file=sys.stderr)
    return result.exit_code


def close_if_unrecorded(job: Submitted, plan: Plan, run_dir: RunDir) -> bool:
    """Write the record of a job that has ended without one. False if that is not possible."""
    if attempts.has_record(run_dir):
        return True
    error = _why_no_record(job, plan, run_dir)
    attempt = ending.attempt_of(plan, job.job_id if plan.slurm else "")
    if ending.close(plan, run_dir, attempt, error) is None:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def _why_no_record(job: Submitted, plan: Plan, run_dir: RunDir) -> RunError:
    found = liveness.of_run(run_dir, plan)
    if found.job is not None and found.job.state == "CANCELLED":
        hint = f"to start it: {sbatch.continuing(plan, run_dir)}"
        return RunError(found.why, hint=hint, code=CANCELLED)
    failed = f"the run ended without a record: {found.why}"
    if shutil.disk_usage(run_dir.root).free < RECORD_BYTES:
        return RunError(
            f"{failed} ({run_dir}): No space left on device",
            hint="free some space, or use another folder: --root /path",
            code=NO_RECORD,
        )
    last = tail(job.log, LOG_LINES) or tail(run_dir.controller_log, LOG_LINES) or "(empty)"
    return RunError(
        f"{failed}; end of its log, {job.log}:\n{last}", hint=f"less {job.log}", code=NO_RECORD
    )
