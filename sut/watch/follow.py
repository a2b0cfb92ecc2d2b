"""Follow a run to its end: how it goes, then what came out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from types import FrameType

from sut.errors import EXIT_FAILED
from sut.launch.executor import Submitted
from sut.plan.plan import Plan
from sut.report import render
from sut.results import record
from sut.rundir import RunDir, tail
from sut.watch.observer import Observer
from sut.watch.screen import Screen

POLL_S = 0.2
LOG_LINES = 15
RECORD_BYTES = 64 * 1024  # what a record needs
SHARED_FILES_S = 5.0
EXIT_DETACHED = 130  # Ctrl-C: nothing is known of the run yet


def follow(job: Submitted, plan: Plan, run_dir: RunDir) -> int:
    """Show a job's progress until it ends, then its result. Returns the exit code.

    Ctrl-C or SIGTERM cancels a run on this machine; it then writes its record and is shown all
    the same. A Slurm job goes on, and only its follower leaves.
    """
    observer = Observer(run_dir)
    if plan.slurm is None:
        with Cancelling() as cancelling, Screen() as screen:
            while not job.done():
                screen.show(observer.look())
                cancelling.cancel_if_asked(observer.pid)
                time.sleep(POLL_S)
    else:
        try:
            with Screen() as screen:
                while not job.done():
                    screen.show(observer.look())
                    time.sleep(POLL_S)
        except KeyboardInterrupt:
            print(f"\nthe job goes on; end it with: scancel {job.job_id}", file=sys.stderr)
            return EXIT_DETACHED
        _wait_for_record(run_dir)
    return show_result(job, run_dir)


def _wait_for_record(run_dir: RunDir) -> None:
    """A shared file system may show a file of another node some seconds late."""
    deadline = time.monotonic() + SHARED_FILES_S
    while not run_dir.record.is_file() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def show_result(job: Submitted, run_dir: RunDir) -> int:
    if not run_dir.record.is_file() and shutil.disk_usage(run_dir.root).free < RECORD_BYTES:
        print(
            f"error: {run_dir}: No space left on device, and the run ended without a record. Make "
            "room, or use another folder: --set site.run_root=/path",
            file=sys.stderr,
        )
        return EXIT_FAILED
    if not run_dir.record.is_file():
        log = job.log
        last = tail(log, LOG_LINES) or tail(run_dir.controller_log, LOG_LINES) or "(nothing)"
        print(
            f"error: the run ended without a record. Its log, {log}, ends:\n{last}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    result = record.read(run_dir.record)
    internal = result.failure is not None and result.failure.code == "internal_error"
    print(render.summary(result, run_dir, tail(job.log, LOG_LINES) if internal else ""))
    return result.exit_code


class Cancelling:
    """Inside, Ctrl-C and SIGTERM ask for the run to be cancelled."""

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
        """Have the run end, once it can be reached."""
        if self._asked and pid is not None:
            self._asked = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
