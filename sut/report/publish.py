"""Write ``report.md`` and ``report.html``.

A bug in plotting must not cost a run its report, nor a report its run: a run draws its page in a
process with a deadline, and if that fails the page has no plots.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping

from sut.errors import quoted
from sut.report import evidence, render
from sut.report.markdown import block, inline
from sut.report.page import Figure
from sut.report.summary import summary
from sut.results import attempts
from sut.results.auxiliary import PLOTS, REPORT, AuxiliaryFailure
from sut.results.record import Record
from sut.rundir import RunDir, write_atomic

DEADLINE_S = 60.0  # a run that has to stop has two minutes
ONLY_HTML = "--only-html"
NO_PLOTS = "no plots"  # begins why a page has none

# Slurm signals every process of a step; these are for the run.
FOR_THE_RUN = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def publish(record: Record, run_dir: RunDir) -> tuple[AuxiliaryFailure, ...]:
    """Write both files of a run that has ended. Never raises: returns what failed, which
    ``report.md`` contains too."""
    try:
        problem = _html(record, run_dir)
    except Exception as error:
        traceback.print_exc()
        problem = f"report.html not written ({run_dir}): {error!r}"
    again = f"Run `python -m sut.report {quoted(run_dir)}` to try again."
    note = "" if problem is None else f"{problem}. {again}"
    found = [] if problem is None else [_failure(problem)]
    if of_markdown := _markdown(record, run_dir, note, again):
        found.append(_failure(of_markdown))
    return tuple(found)


def _failure(problem: str) -> AuxiliaryFailure:
    part = PLOTS if problem.startswith(NO_PLOTS) else REPORT
    return AuxiliaryFailure(part=part, cause=problem)


def _markdown(record: Record, run_dir: RunDir, note: str, again: str) -> str | None:
    """Write ``report.md``, with the summary alone if the rest fails. Returns what failed."""
    try:
        write_markdown(record, run_dir, note)
        return None
    except OSError as error:
        return f"report.md not written ({run_dir.report}): {error.strerror}"
    except Exception as error:
        traceback.print_exc()
        problem = f"report.md not written: {error!r}"
    try:
        text = f"{block(summary(record, run_dir))}\n\n{inline(problem)}. {again}\n"
        write_atomic(run_dir.report, text)
    except Exception as error:
        problem += f"; nor its summary ({run_dir.report}): {error!r}"
    return problem


def write_markdown(record: Record, run_dir: RunDir, note: str = "") -> None:
    text = render.render(record, str(run_dir), evidence.read(record, run_dir), note)
    write_atomic(run_dir.report, text)


def write_html(record: Record, run_dir: RunDir) -> str | None:
    """Write the page. Returns why it has no plots, if it has none. Raises OSError.

    Without matplotlib, a page that the run has already is kept: it may have the plots.
    """
    found = evidence.read(record, run_dir)
    figures: Mapping[str, tuple[Figure, ...]] = {}
    cause = ""
    try:
        from sut.report import plots  # needs matplotlib, which a login node does not have

        figures = plots.draw(record, found)
    except ModuleNotFoundError as error:
        if attempts.has_page(run_dir):
            kept = f"{run_dir.report_html} kept as it is: {error.name} is not installed here"
            print(kept, file=sys.stderr)
            return None
        cause = f"{error.name} is not installed here; to draw them: {_drawing(record, run_dir)}"
    except Exception as error:
        traceback.print_exc()
        cause = f"plotting failed: {error!r}"
    problem = f"{NO_PLOTS} ({run_dir.report_html}): {cause}" if cause else None
    page = render.render_html(record, str(run_dir), found, figures, problem or "")
    write_atomic(run_dir.report_html, page)
    return problem


def _drawing(record: Record, run_dir: RunDir) -> str:
    """The command that draws the plots where this Python cannot: the run's own Python does."""
    command = ["python3", "-m", "sut.report", str(run_dir)]
    container = record.plan.container
    if container is None:
        return f"make build && .venv/bin/{shlex.join(command)}"
    return shlex.join(
        [container.command, "exec", "--bind", str(run_dir), container.image, *command]
    )


def _html(record: Record, run_dir: RunDir) -> str | None:
    """Write the page in a process with a deadline, and without plots where that fails. Returns what
    failed.

    A run in a container leaves the page without plots to its host, which draws in the image again:
    a signal to a whole step takes the image away from the run in it.
    """
    cause = _drawn_in_child(run_dir)
    if cause is None or cause.startswith(NO_PLOTS):
        return cause
    if record.plan.container is not None:
        return f"report.html not written ({run_dir.report_html}): {cause}"
    problem = f"{NO_PLOTS} ({run_dir.report_html}): {cause}"
    found = evidence.read(record, run_dir)
    try:
        page = render.render_html(record, str(run_dir), found, {}, problem)
        write_atomic(run_dir.report_html, page)
    except OSError as error:
        return f"report.html not written ({run_dir.report_html}): {error.strerror}"
    return problem


def _drawn_in_child(run_dir: RunDir) -> str | None:
    """Returns why there is no page, or none with plots."""
    command = [sys.executable, "-m", "sut.report", ONLY_HTML, str(run_dir)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_RUN)  # the child inherits it
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
        return f"drawing them timed out after {DEADLINE_S:g} s"
    except OSError as error:
        return f"cannot start {sys.executable}: {error.strerror}"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if done.returncode == 0:
        return None
    sys.stderr.write(done.stderr)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    return f"drawing them exited with code {done.returncode}. {last}".rstrip()
