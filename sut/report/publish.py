"""A run's own report, written when it ends.

Nothing that goes wrong in a report fails the run: figures are drawn in a process of their own,
which has a deadline.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import traceback

from sut.report import evidence, render
from sut.results.record import Record
from sut.rundir import RunDir, write_atomic

DEADLINE_S = 60.0  # a run that is told to leave has two minutes

# Slurm signals every process of a step, and this one is meant for the run, which is over.
NOT_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def publish(result: Record, run_dir: RunDir) -> str | None:
    """Write ``report.md`` and ``report.html`` of a run that is over. Never raises; says what went
    wrong, if anything did, and says it in ``report.md`` too."""
    problem = None
    try:
        write_atomic(run_dir.report, render.render(result, evidence.read(result, run_dir)))
    except Exception as error:
        traceback.print_exc()
        problem = f"report.md could not be written: {error!r}"
    problem = problem or _html_by_itself(run_dir)
    if problem is not None:
        _add(run_dir, result, problem)
    return problem


def _html_by_itself(run_dir: RunDir) -> str | None:
    command = [sys.executable, "-m", "sut.report", str(run_dir)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_OURS)  # inherited
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
        )
    except subprocess.TimeoutExpired:
        return f"report.html was not drawn within {DEADLINE_S:g} s"
    except OSError as error:
        return f"report.html could not be drawn: {error}"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if done.returncode == 0:
        return None
    sys.stderr.write(done.stderr)
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"report.html could not be drawn: {last}"


def _add(run_dir: RunDir, result: Record, problem: str) -> None:
    """Say in ``report.md`` what is missing, whatever there is of it."""
    try:
        text = run_dir.report.read_text() if run_dir.report.is_file() else ""
        text = text or f"```\n{render.summary(result, run_dir)}\n```\n"
        again = f"`python -m sut.report {run_dir}` tries again."
        write_atomic(run_dir.report, f"{text}\n{problem}. {again}\n")
    except OSError as error:
        print(f"{run_dir.report}: {error.strerror}", file=sys.stderr)
