"""The command of ``--notify``: it gets the run's result, and never changes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from sut import messages
from sut.errors import EXIT_FAILED, quoted
from sut.launch import notices
from sut.plan.plan import load_plan
from sut.report.summary import title
from sut.results.record import headline
from sut.rundir import RunDir, tail
from sut.units import quantity
from sut.watch import outcome
from sut.watch.outcome import Outcome

LOG_LINES = 15
LIMIT_S = 30.0  # of the command; the job waits for it
FAILED = "--notify command failed: "


def send(run_dir: RunDir, limit_s: float = LIMIT_S) -> bool:
    """Run the command of a run that has ended, if it has one. Its output goes to this process's,
    and so does a line on how it ended. Returns whether it did not fail. Raises InputError if the
    run's files cannot be read."""
    command = notices.read(run_dir).command
    if not command:
        return True
    # A job ignores SIGTERM, and a program started so keeps ignoring it; a handler is not inherited.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        problem = _problem(command, facts(run_dir), limit_s)
    finally:
        signal.signal(signal.SIGTERM, before)
    result = FAILED + problem if problem else "--notify command finished"
    messages.report(result)
    return not problem


def warn_of_failure(run_dir: RunDir) -> None:
    """Print how the command of a run failed and where its output is, if the job's log shows it."""
    for log in run_dir.job_logs(0):
        last = tail(log, LOG_LINES)
        if FAILED in last:
            problem = last[last.rindex(FAILED) :].partition("\n")[0]
            messages.report(
                f"warning: {problem} (its output: {log})\n"
                f"hint: to run it again: python -m sut.notify {quoted(run_dir)}"
            )
            return


def facts(run_dir: RunDir) -> dict[str, str]:
    """The facts of a run that has ended, as environment variables."""
    plan = load_plan(run_dir.plan)
    found = outcome.of(run_dir, "", plan)
    result = found.result
    failure = result.failure.code if result and result.failure else ""
    return {
        "SUT_SUMMARY": _summary(found, title(plan)),
        "SUT_VERDICT": (result.verdict if result else None) or "",
        "SUT_STATUS": result.status if result else "failed",
        "SUT_EXIT_CODE": str(result.exit_code if result else EXIT_FAILED),
        "SUT_FAILURE": failure,
        "SUT_REASONS": ",".join(result.why) if result else "",
        "SUT_RUN": run_dir.root.name,
        "SUT_RUN_DIR": str(run_dir),
        "SUT_REPORT": str(run_dir.report_html),
        "SUT_RECORD": str(run_dir.record),
        "SUT_BENCHMARK": plan.benchmark,
        "SUT_SCENARIO": plan.scenario.value,
        "SUT_NODE": os.uname().nodename,
    }


def _summary(found: Outcome, what: str) -> str:
    """One line."""
    result = found.result
    if result is None:
        return f"FAILED  {what}: the run ended without a record"
    word = headline(result.verdict or result.status.upper(), found.mode)
    if result.failure is not None:
        return f"{word}  {what}: {result.failure.code}: {result.failure.first_line}"
    figures = [
        f"{name}{quantity(value, unit)}"
        for name, value, unit in (
            ("", result.tokens_per_s, "tokens/s"),
            ("TTFT p99 ", result.ttft_p99_ms, "ms"),
            ("TPOT p99 ", result.tpot_p99_ms, "ms"),
        )
        if value is not None
    ]
    parts = [f"not met: {', '.join(result.why)}" if result.why else "", ", ".join(figures)]
    return f"{word}  {what}: {'; '.join(filter(None, parts)) or 'no figures'}"


def _problem(command: str, known: dict[str, str], limit_s: float) -> str:
    """Why the command failed; empty if it succeeded. Ends its process group after the limit."""
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env={**os.environ, **known},
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            stderr=sys.stderr,
            text=True,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return str(error)
    try:
        process.communicate(f"{known['SUT_SUMMARY']}\n", timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"ended after {quantity(limit_s, 's')}"
    return f"exit code {process.returncode}" if process.returncode else ""
