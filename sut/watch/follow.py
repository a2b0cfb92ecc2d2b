"""Follow a run of this command: its progress, then its result."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from collections.abc import Callable

from rich.console import Console

from sut import layout, messages
from sut.cluster import liveness, sbatch
from sut.cluster.liveness import Liveness
from sut.errors import CANCELLED, EXIT_FAILED, NO_RECORD, RunError, quoted
from sut.interrupts import Interrupt
from sut.launch import ending, node
from sut.launch.members import Job
from sut.machine import processes
from sut.report.summary import summary
from sut.results import attempts, diagnosis, record
from sut.watch import notify, outcome
from sut.watch.observer import Observer
from sut.watch.outcome import Outcome
from sut.watch.patience import GIVE_UP_S, Patience
from sut.watch.screen import Screen
from sut.watch.state import RunState

POLL_S = 0.2
RECORD_BYTES = 64 * 1024  # enough for a record
ASK_SLURM_S = 2.0
EXIT_DETACHED = 130  # Ctrl-C: the run has no result yet


def follow(job: Job, interrupt: Interrupt) -> int:
    """Show a job's progress until it ends, then its result. Returns the exit code."""
    return _show_result(job) if until_ended(job, interrupt) else EXIT_DETACHED


def wait(job: Job, interrupt: Interrupt, *, quietly: bool) -> int:
    """Follow a run to its end. Returns its exit code. Quietly: progress on standard error, and no
    result."""
    if not quietly:
        return follow(job, interrupt)
    if not until_ended(job, interrupt, Console(stderr=True)):
        return EXIT_DETACHED
    close_if_unrecorded(job)
    notify.warn_of_failure(job.run_dir)
    found = outcome_of(job).result
    return EXIT_FAILED if found is None else found.exit_code


def outcome_of(job: Job, name: str = "") -> Outcome:
    return outcome.of(job.run_dir, job.submitted.job_id, job.plan, name)


def until_ended(job: Job, interrupt: Interrupt, console: Console | None = None) -> bool:
    """Show a job's progress until it ends, on standard output or ``console``. False if the user
    stopped following.

    Ctrl-C or SIGTERM cancels a run on this machine, unless it has its result. A Slurm job
    continues: only its follower exits.
    """
    observer, answered = Observer(job.run_dir, ASK_SLURM_S), False
    patience, exited = Patience(for_job=True), job.submitted.exited
    with Screen(console) as screen:
        while True:
            state = observer.look()
            over = _is_over(exited, observer) if exited else patience.ends(state)
            if over:
                return True
            screen.show(state)
            if interrupt.asked and job.plan.slurm is not None:
                detached(job)
                return False
            if interrupt.asked and not answered and (pid := _process(observer)) is not None:
                answered = True
                _cancel(job, state, pid, interrupt)
            screen.wait(POLL_S)


def _is_over(exited: Callable[[], bool], observer: Observer) -> bool:
    """Whether a run on this machine has ended. A signal to all its processes ends the one that
    started it at once, and the run after its record."""
    return exited() and processes.running("sut.run", str(observer.run)) is None


def _process(observer: Observer) -> int | None:
    """The run's process once it handles SIGTERM, also if it could not write its progress."""
    if observer.pid is not None and observer.plan.container is None:  # it has its own numbers
        return observer.pid
    pid = processes.running("sut.run", str(observer.run))
    return pid if pid is not None and processes.handles(pid, signal.SIGTERM) else None


def detached(job: Job) -> int:
    cancel = f"python -m sut.cancel {job.submitted.job_id}"
    print(f"\ndetached; the job continues. To cancel it: {cancel}", file=sys.stderr)
    return EXIT_DETACHED


def _cancel(job: Job, state: RunState, pid: int, interrupt: Interrupt) -> None:
    if state.state == "finished":
        what = state.ending or "it ends by itself"
        print(f"\nthe run has its result and is not cancelled; {what}", file=sys.stderr)
        return
    print("\ncancelling the run", file=sys.stderr)
    # Apptainer is known to forward SIGTERM to the run in it.
    number = interrupt.for_run if job.plan.container is None else signal.SIGTERM
    with contextlib.suppress(ProcessLookupError):
        ending.ask(job.run_dir, pid, number)


def _show_result(job: Job) -> int:
    """Print the result of a job that has ended. Returns its exit code."""
    if not close_if_unrecorded(job):
        return EXIT_FAILED
    log, run_dir = job.submitted.log, job.run_dir
    ending.draw_if_missing(run_dir)
    result = record.read(run_dir.record)
    internal = result.failure is not None and result.failure.code == "internal_error"
    shown = diagnosis.of(log).lines if internal else ()
    print(summary(result, run_dir, shown, layout.terminal_width()))
    notify.warn_of_failure(run_dir)
    return result.exit_code


def close_if_unrecorded(job: Job) -> bool:
    """Write the record of a job that has ended without one. False if that is not possible, or if
    the job may still run."""
    if attempts.has_record(job.run_dir):
        return True
    if not job.run_dir.plan.is_file():
        messages.report(
            f"error: the run's folder was removed while it ran ({job.run_dir})\n"
            "hint: keep the folder until the run has ended, and submit the run again"
        )
        return False
    found = liveness.of_run(job.run_dir, job.plan)
    if found.state == "unknown":
        messages.report(_given_up(job, found.why))
        return False
    error = _why_no_record(job, found)
    attempt = ending.attempt_of(job.plan, job.submitted.job_id if job.plan.slurm else "")
    if ending.close(job.plan, job.run_dir, attempt, error) is None:
        messages.report(f"error: {error}")
        return False
    return True


def _given_up(job: Job, why: str) -> str:
    return (
        f"error: no sign of job {job.submitted.job_id} for {GIVE_UP_S / 60:g} minutes ({why}); it "
        f"may still run\nhint: look at it later: python -m sut.watch {quoted(job.run_dir)}"
    )


def _why_no_record(job: Job, found: Liveness) -> RunError:
    log, run_dir = job.submitted.log, job.run_dir
    if found.job is not None and found.job.state == "CANCELLED" and not found.job.nodes:
        hint = f"to start it: {sbatch.continuing(job.plan, run_dir)}"
        return RunError(found.why, hint=hint, code=CANCELLED)
    state = found.job.state if found.job is not None else ""
    if error := node.ended_by_slurm(job.plan, run_dir, job.submitted.job_id, state):
        return error
    failed = f"the run ended without a record: {found.why}"
    if shutil.disk_usage(run_dir.root).free < RECORD_BYTES:
        return RunError(
            f"{failed} ({run_dir}): No space left on device",
            hint="free some space, or use another folder: --root /path",
            code=NO_RECORD,
        )
    shown = diagnosis.of(log, *run_dir.job_logs())
    return shown.error(failed, hint=f"less {quoted(shown.log)}", code=NO_RECORD)
