"""Follow a run to its end: one line that lives, then what came out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.status import Status

from sut.errors import EXIT_FAILED
from sut.executor import Submitted
from sut.plan import Plan
from sut.progress import Line, Reader
from sut.results import record, report
from sut.rundir import RunDir

POLL_S = 0.2
PLAIN_INTERVAL_S = 10.0  # between lines of one phase where there is no terminal
LOG_LINES = 15
RECORD_BYTES = 64 * 1024  # what a record needs
SHARED_FILES_S = 5.0
SILENCE_S = 5.0  # of a run's progress, before it is asked whether it waits again
EXIT_DETACHED = 130  # Ctrl-C: nothing is known of the run yet


def follow(job: Submitted, plan: Plan, run_dir: RunDir) -> int:
    """Show a job's progress until it ends, then its result. Returns the exit code.

    Ctrl-C or SIGTERM cancels a run on this machine; it then writes its record and is shown all
    the same. A Slurm job goes on, and only its follower leaves.
    """
    lines = Lines(run_dir.progress)
    if plan.slurm is None:
        with cancelling(lines):
            _show_until_done(job, plan, lines)
    else:
        try:
            _show_until_done(job, plan, lines)
        except KeyboardInterrupt:
            print(f"\nthe job goes on; end it with: scancel {job.job_id}", file=sys.stderr)
            return EXIT_DETACHED
        _wait_for_record(run_dir)
    return show_result(job, run_dir)


def _show_until_done(job: Submitted, plan: Plan, lines: Lines) -> None:
    with Display(plan) as display:
        last_heard = float("-inf")
        while not job.done():
            if fresh := lines.read():
                last_heard = time.monotonic()
                display.show(fresh)
            elif time.monotonic() - last_heard > SILENCE_S:  # what Slurm said may be a little old
                display.wait(job.waiting())
            lines.cancel_if_asked()
            time.sleep(POLL_S)


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
        tail = _tail(log) or _tail(run_dir.slurm / "controller.log") or "(nothing)"
        print(
            f"error: the run ended without a record. Its log, {log}, ends:\n{tail}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    result = record.read(run_dir.record)
    internal = result.failure is not None and result.failure.code == "internal_error"
    print(report.summary(result, run_dir, _tail(job.log) if internal else ""))
    return result.exit_code


class Lines:
    """The lines of a run's progress file as they come, and the run's process id from its first."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._pid: int | None = None
        self.cancel_asked = False

    def read(self) -> list[Line]:
        """The lines that have come since the last call."""
        lines = self._reader.read()
        self._pid = next((line.pid for line in reversed(lines) if line.pid), self._pid)
        return lines

    def cancel_if_asked(self) -> None:
        """Have the run end, once it can be reached."""
        if self.cancel_asked and self._pid is not None:
            self.cancel_asked = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)


@contextlib.contextmanager
def cancelling(lines: Lines) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM ask for the run to be cancelled."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        print("\ncancelling the run", file=sys.stderr)
        lines.cancel_asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Display:
    """One line on a terminal, rewritten; elsewhere a line for each step and every ten seconds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console()
        self._status: Status | None = None
        self._last = ("", -PLAIN_INTERVAL_S)

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def wait(self, what: str) -> None:
        """Show what a job waits for; nothing when it does not."""
        if not what:
            return
        if self._status is not None:
            self._status.update(what)
        elif what != self._last[0]:
            self._last = (what, -PLAIN_INTERVAL_S)
            print(what, flush=True)

    def show(self, lines: list[Line]) -> None:
        if self._status is not None and lines:
            self._status.update(text(lines[-1], self._plan))
        elif self._status is None:
            for line in lines:
                step, shown = self._last
                if line.step != step or line.t_s - shown >= PLAIN_INTERVAL_S:
                    self._last = (line.step, line.t_s)
                    print(text(line, self._plan), flush=True)


def text(line: Line, plan: Plan) -> str:
    """A line of progress for reading."""
    begin = f"{line.t_s:6.1f} s  "
    if line.phase is None:
        return begin + line.step
    parts = [f"{line.phase}: {line.completed:,} of {_goal(line, plan)} done"]
    parts += [f"{line.in_flight} in flight", f"{line.queued} queued"]
    if line.elapsed_s > 0:
        parts.append(f"{line.output_tokens / line.elapsed_s:,.0f} tokens/s")
    if line.ttft_p99_ms is not None:
        parts.append(f"TTFT p99 {line.ttft_p99_ms:,.0f} ms")
    if line.tpot_p99_ms is not None:
        parts.append(f"TPOT p99 {line.tpot_p99_ms:,.1f} ms")
    for replica in line.replicas:
        name = f"replica {replica.index} " if len(line.replicas) > 1 else ""
        parts.append(f"{name}KV {replica.kv_cache_usage:.0%}")
    return begin + ", ".join(parts)


def _goal(line: Line, plan: Plan) -> str:
    """How many samples the phase has, as far as it is known before it ends."""
    settings = plan.loadgen_settings
    if line.phase == "accuracy":
        return f"{settings.accuracy_sample_count or plan.dataset.num_samples:,}"
    least = settings.max_query_count or settings.min_query_count or 0
    return f"{line.issued:,}" if line.issued > least else f"at least {least:,}"


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-LOG_LINES:])
