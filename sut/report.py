"""The report of a run: ``python -m sut.report RUN...`` writes it again from what the run left.

A run writes its own when it ends. Nothing that goes wrong in a report fails the run: figures are
drawn in a process of their own, which has a deadline.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.command import command
from sut.errors import EXIT_FAILED
from sut.plan import Mode
from sut.results import record, report
from sut.results.page import Figure
from sut.results.record import Record
from sut.results.report import evidence
from sut.results.report.evidence import Evidence
from sut.rundir import RunDir, write_atomic

DEADLINE_S = 60.0  # a run that is told to leave has two minutes
# Slurm signals every process of a step, and this one is meant for the run, which is over.
NOT_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def publish(result: Record, run_dir: RunDir) -> str | None:
    """Write ``report.md`` and ``report.html`` of a run that is over. Never raises; says what went
    wrong, if anything did, and says it in ``report.md`` too."""
    problem = None
    try:
        write_atomic(run_dir.report, report.render(result, evidence.read(result, run_dir)))
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
        text = text or f"```\n{report.summary(result, run_dir)}\n```\n"
        again = f"`python -m sut.report {run_dir}` tries again."
        write_atomic(run_dir.report, f"{text}\n{problem}. {again}\n")
    except OSError as error:
        print(f"{run_dir.report}: {error.strerror}", file=sys.stderr)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the reports. Exit code 0; 2: not a run; 3: a report has no figures."""
    parser = argparse.ArgumentParser(
        prog="python -m sut.report",
        description="Write report.md and report.html of runs again, from what the runs left.",
        epilog="exit codes: 0 written, 2 not a run, 3 written without its figures",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder")
    code = 0
    for path in parser.parse_args(argv).runs:
        result = record.read(path)
        run_dir = RunDir(path if path.is_dir() else path.parent)
        try:
            problem = _write(result, run_dir)
        except OSError as error:
            print(f"error: {error.filename or run_dir}: {error.strerror}", file=sys.stderr)
            return EXIT_FAILED
        print(run_dir.report_html)
        if problem is not None:
            print(f"error: {problem}", file=sys.stderr)
            code = EXIT_FAILED
    return code


def _write(result: Record, run_dir: RunDir) -> str | None:
    """Both files. Returns why the figures are missing, if they are. Raises OSError."""
    seen = evidence.read(result, run_dir)
    figures: Mapping[str, tuple[Figure, ...]] = {}
    problem = None
    try:
        figures = draw(result, seen)
    except ModuleNotFoundError as error:
        problem = (
            f"the figures need {error.name}, which is not installed here; the Python that runs "
            "vLLM has it"
        )
    except Exception as error:
        traceback.print_exc()
        problem = f"the figures could not be drawn: {error!r}"
    note = "" if problem is None else f"**No figures**: {problem}."
    write_atomic(run_dir.report, report.render(result, seen))
    write_atomic(run_dir.report_html, report.render_html(result, seen, figures, note))
    return problem


def draw(result: Record, seen: Mapping[str, Evidence]) -> dict[str, tuple[Figure, ...]]:
    """The figures of the phases whose time is measured, and of the nodes' meters meanwhile."""
    from sut.results.report import meter_plots, progress_plots, sample_plots
    from sut.results.report.subject import subject_of

    phases = {phase.name: phase for phase in result.phases}
    drawn: dict[str, tuple[Figure, ...]] = {}
    for name, of_phase in seen.items():
        phase = phases.get(name)
        if name != Mode.PERFORMANCE and phase is not None:
            continue
        subject = subject_of(result, name, of_phase)
        drawn[name] = (*sample_plots.draw(subject), *progress_plots.draw(subject))
        if phase is not None and phase.start_unix_s is not None and phase.duration_s is not None:
            readings = of_phase.readings
            meters = meter_plots.draw(readings, phase.start_unix_s, phase.duration_s)
            drawn["telemetry"] = tuple(meters)
    return drawn


if __name__ == "__main__":
    sys.exit(main())
