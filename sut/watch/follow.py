"""Follow a run of this command: its progress, then its result."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from types import FrameType

from rich.console import Console

from sut.errors import EXIT_FAILED, SutError
from sut.launch.executor import Submitted
from sut.plan.plan import Plan
from sut.report.summary import summary
from sut.results import record
from sut.rundir import RunDir, tail
from sut.watch.observer import Observer
from sut.watch.screen import Screen

POLL_S = 0.2
LOG_LINES = 15
RECORD_BYTES = 64 * 1024  # enough for a record
SHARED_FILES_S = 5.0
EXIT_DETACHED = 130  # Ctrl-C: the run has no result yet


def follow(job: Submitted, plan: Plan, run_dir: RunDir) -> int:
    """Show a job's progress until it ends, then its result. Returns the exit code."""
    if not until_ended(job, plan, run_dir):
        return EXIT_DETACHED
    return show_result(job, run_dir)


def until_ended(
    job: Submitted, plan: Plan, run_dir: RunDir, console: Console | None = None
) -> bool:
    """Show a job's progress until it ends, on standard output or ``console``. False if the user
    stopped following.

    Ctrl-C or SIGTERM cancels a run on this machine. A Slurm job continues: only its follower
    exits.
    """
    observer = Observer(run_dir)
    if plan.slurm is None:
        with Cancelling() as cancelling, Screen(console) as screen:
            while not job.done():
                screen.show(observer.look())
                cancelling.cancel_if_asked(observer.pid)
                screen.wait(POLL_S)
    else:
        try:
            with Screen(console) as screen:
                while not job.done():
                    screen.show(observer.look())
                    screen.wait(POLL_S)
        except KeyboardInterrupt:
            print(
                f"\ndetached; the job continues. To cancel it: scancel {job.job_id}",
                file=sys.stderr,
            )
            return False
        _wait_for_record(run_dir)
    return True


def _wait_for_record(run_dir: RunDir) -> None:
    """A shared file system may show a file of another node seconds late."""
    deadline = time.monotonic() + SHARED_FILES_S
    while not run_dir.record.is_file() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def show_result(job: Submitted, run_dir: RunDir) -> int:
    if not run_dir.record.is_file():
        return show_no_record(job, run_dir)
    result = record.read(run_dir.record)
    internal = result.failure is not None and result.failure.code == "internal_error"
    print(summary(result, run_dir, tail(job.log, LOG_LINES) if internal else ""))
    return result.exit_code


def show_no_record(job: Submitted, run_dir: RunDir) -> int:
    print(f"error: {_why_no_record(job, run_dir)}", file=sys.stderr)
    return EXIT_FAILED


def _why_no_record(job: Submitted, run_dir: RunDir) -> SutError:
    failed = f"the run ended without a record ({run_dir})"
    if shutil.disk_usage(run_dir.root).free < RECORD_BYTES:
        return SutError(
            f"{failed}: No space left on device",
            hint="free some space, or use another folder: --set site.run_root=/path",
        )
    last = tail(job.log, LOG_LINES) or tail(run_dir.controller_log, LOG_LINES) or "(empty)"
    return SutError(f"{failed}; end of its log, {job.log}:\n{last}", hint=f"less {job.log}")


class Cancelling:
    """A context in which Ctrl-C and SIGTERM request that the run is cancelled."""

    def __init__(self) -> None:
        self._asked = False

    def __enter__(self) -> Cancelling:
        signals = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        print("\ncancelling the run", file=sys.stderr)
        self._asked = True

    def cancel_if_asked(self, pid: int | None) -> None:
        if self._asked and pid is not None:
            self._asked = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
