"""The report of a run: ``python -m sut.report RUN...`` writes it again from what the run left.

A run writes its own when it ends. Nothing that goes wrong in a report fails the run: figures are
drawn in a process of their own, which has a deadline.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.command import command
from sut.errors import EXIT_FAILED
from sut.plan.plan import Mode
from sut.report import evidence, render
from sut.report.evidence import Evidence
from sut.report.page import Figure
from sut.results import record
from sut.results.record import Record
from sut.rundir import RunDir, write_atomic


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
    write_atomic(run_dir.report, render.render(result, seen))
    write_atomic(run_dir.report_html, render.render_html(result, seen, figures, note))
    return problem


def draw(result: Record, seen: Mapping[str, Evidence]) -> dict[str, tuple[Figure, ...]]:
    """The figures of the phases whose time is measured, and of the nodes' meters meanwhile."""
    from sut.report import meter_plots, progress_plots, sample_plots
    from sut.report.subject import subject_of

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
