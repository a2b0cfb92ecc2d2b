"""Progress: one JSON object a line in ``RUN_DIR/progress.jsonl``, about one a second.

The run writes it; ``sut.watch`` and the report read it. A truncated last line is still being
written. Fields that do not apply are None or left out.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from sut.results.budget import Hopeless
from sut.rundir import LineFile, Outage
from sut.values import UNDECODABLE

if TYPE_CHECKING:
    from sut import _core

INTERVAL_S = 1.0


class ReplicaProgress(msgspec.Struct, omit_defaults=True):
    """One replica, by the dispatcher's counts and the engine's scheduler statistics."""

    index: int
    in_flight: int
    running: int
    waiting: int
    kv_cache_usage: float  # 0 to 1
    output_tokens: int
    prompt_tokens: int = 0  # of the samples sent to it
    completed: int = 0  # samples


class Line(msgspec.Struct, omit_defaults=True):
    """The state of a run. ``t_s`` is the time since the run started; counts are of the phase."""

    t_s: float
    step: str  # a description
    stage: str = ""  # the record's step that it is part of, e.g. load; empty between two steps
    pid: int | None = None  # of the run, in an attempt's first line: SIGTERM to it cancels the run
    host: str | None = None  # of that process
    phase: str | None = None
    issued: int = 0
    queued: int = 0
    in_flight: int = 0
    completed: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0  # of the samples sent to replicas
    elapsed_s: float = 0.0  # of the phase
    ttft_p99_ms: float | None = None
    tpot_p99_ms: float | None = None
    ttft_over: int | None = None  # samples over LoadGen's limit, or certain to be
    tpot_over: int | None = None
    hopeless: Hopeless | None = None  # once the phase can no longer be VALID
    target_qps: float | None = None  # the load that the run chose, once it has
    replicas: list[ReplicaProgress] = []


class Progress:
    """Appends lines: at most one an interval, and one for each new step. A line that cannot be
    written, as on a full disk, is lost: no run depends on it. ``terminal``: each new step is
    also printed there."""

    def __init__(self, path: Path, terminal: TextIO | None = None) -> None:
        self._file, self._terminal = LineFile(path), terminal
        self._start = time.monotonic()
        self._last = ("", 0.0)
        self.stage = ""  # of the lines to come
        first = Line(t_s=self._now(), step="starting", pid=os.getpid(), host=socket.gethostname())
        self._write(first)

    @property
    def outage(self) -> Outage | None:
        """When lines were lost."""
        return self._file.outage

    def step(self, text: str, *, target_qps: float | None = None) -> None:
        self._write(Line(t_s=self._now(), step=text, target_qps=target_qps))

    def phase(
        self,
        name: str,
        stats: _core.Stats,
        num_over: tuple[int, int] | None = None,
        hopeless: Hopeless | None = None,
        *,
        last: bool = False,
    ) -> None:
        """Report a phase; its ``last`` line is always written. ``num_over`` is the number of
        samples over the TTFT limit and over the TPOT limit."""
        ttft, tpot = stats.ttft_ns.get("p99"), stats.tpot_ns.get("p99")
        ttft_over, tpot_over = num_over or (None, None)
        self._write(
            Line(
                t_s=self._now(),
                step=name,
                phase=name,
                issued=stats.issued,
                queued=stats.queued,
                in_flight=sum(replica.in_flight for replica in stats.replicas),
                completed=stats.completed,
                output_tokens=stats.output_tokens,
                prompt_tokens=stats.prompt_tokens,
                elapsed_s=round(stats.elapsed_ns / 1e9, 3),
                ttft_p99_ms=None if ttft is None else ttft / 1e6,
                tpot_p99_ms=None if tpot is None else tpot / 1e6,
                ttft_over=ttft_over,
                tpot_over=tpot_over,
                hopeless=hopeless,
                replicas=[
                    ReplicaProgress(
                        index=replica.index,
                        in_flight=replica.in_flight,
                        running=replica.running,
                        waiting=replica.waiting,
                        kv_cache_usage=round(replica.kv_cache_usage, 4),
                        output_tokens=replica.output_tokens,
                        prompt_tokens=replica.prompt_tokens,
                        completed=replica.completed,
                    )
                    for replica in stats.replicas
                ],
            ),
            always=last,
        )

    def due(self, step: str) -> bool:
        """Whether a line for ``step`` would be written, for callers whose figures are costly."""
        last_step, last_time = self._last
        return step != last_step or self._now() - last_time >= INTERVAL_S

    def _now(self) -> float:
        return round(time.monotonic() - self._start, 3)

    def _write(self, line: Line, *, always: bool = False) -> None:
        step = line.phase or line.step
        if self._terminal is not None and step != self._last[0]:
            with contextlib.suppress(OSError):
                print(f"  {step}", file=self._terminal, flush=True)
        if always or self.due(step):
            self._last = (step, line.t_s)
            line.stage = self.stage
            self._file.append(msgspec.json.encode(line))


class Reader:
    """Reads a progress file as it grows. No file stays open between calls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Line]:
        """The lines since the last call; none of a file that is missing or unreadable. A line still
        being written is left for the next call; one that is not valid is skipped."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:  # not there yet, or unreadable: a run goes on without it
            return []
        self._offset += len(whole) + len(newline)
        lines = []
        for line in whole.splitlines():
            with contextlib.suppress(*UNDECODABLE):
                lines.append(msgspec.json.decode(line, type=Line))
        return lines
