"""The end of a run whose own process could not write its record or its report.

``sut.run`` writes both. This is for everything before it starts and after it is killed, and needs
neither the image nor torch nor the C++ core.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import msgspec

from sut import messages
from sut.cluster import claims, liveness
from sut.errors import SutError
from sut.machine import environment
from sut.plan.plan import Plan
from sut.results import attempts
from sut.results.record import Attempt, Record
from sut.rundir import RunDir, write_atomic

REPORT_S = 60.0


def attempt_of(plan: Plan, job_id: str = "") -> Attempt:
    """An attempt of a run that has not begun."""
    names = tuple(node.name for node in plan.nodes if node.name)
    return Attempt(job_id=job_id, restart=0, nodes=names, started_utc=attempts.utc_now())


def close(plan: Plan, run_dir: RunDir, attempt: Attempt, error: SutError) -> Record | None:
    """Write the record of an attempt that ended with ``error``, and the report. None if the record
    cannot be written or the run directory is another attempt's, which is reported on standard
    error."""
    if not run_dir.plan.is_file():
        messages.report(f"error: record not written ({run_dir.record}): the folder was removed")
        return None
    try:
        claim = claims.take(run_dir, attempt.job_id, attempt.restart)
        closed = attempts.close(plan, run_dir, attempt, error, environment.collect())
        claim.release()
    except (OSError, SutError) as problem:
        messages.report(f"error: record not written ({run_dir.record}): {problem}")
        return None
    _draw(run_dir)
    return closed


def ask(run_dir: RunDir, pid: int, number: signal.Signals) -> bool:
    """Signal the process of a run on this machine to end. False if it was signalled before: it is
    ending. Raises ProcessLookupError."""
    process = liveness.process(pid)
    if liveness.read(run_dir.signalled) == process:
        return False
    os.kill(pid, number)
    with contextlib.suppress(OSError):  # a full disk
        write_atomic(run_dir.signalled, msgspec.json.encode(process))
    return True


def report_is_missing(run_dir: RunDir) -> bool:
    return run_dir.record.is_file() and not attempts.has_page(run_dir)


def draw_if_missing(run_dir: RunDir) -> None:
    if report_is_missing(run_dir):
        _draw(run_dir)


def _draw(run_dir: RunDir) -> None:
    """Write the reports with this Python. Without matplotlib they have no plots and say how to
    draw them."""
    command = [sys.executable, "-m", "sut.report", str(run_dir)]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=REPORT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        messages.report(f"error: report not written ({run_dir}): {error}")
