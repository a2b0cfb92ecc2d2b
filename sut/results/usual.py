"""How long each step of a run usually takes: by the records of earlier, alike runs."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sut.plan.plan import Plan
from sut.results.record import Engines, Step
from sut.rundir import RunDir
from sut.values import UNDECODABLE

NUM_SEEN = 40  # records read, from the newest
NUM_USED = 5  # of those, runs that were alike


class _Plan(msgspec.Struct):
    """What decides how long a step takes."""

    benchmark: str
    site: str
    device: str
    engine: Any
    replicas: Any


class _Record(msgspec.Struct):
    status: str
    plan: _Plan
    timings: list[Step]
    engines: Engines | None = None

    @property
    def usual(self) -> bool:
        """Whether it ran to its end and started its engines: warm ones load in no time."""
        warm = self.engines is not None and any(each.warm for each in self.engines.replicas)
        return self.status == "completed" and not warm


_decoder = msgspec.json.Decoder(_Record)


def step_times(run_root: Path, plan: Plan, but: str = "") -> dict[str, float]:
    """The median duration of each step in seconds, by its name; empty without earlier runs of the
    same benchmark, site and engine settings under ``run_root``. The run ``but`` is left out."""
    ours = msgspec.json.decode(msgspec.json.encode(plan), type=_Plan)
    alike = [r for r in _records(run_root, but) if r.usual and r.plan == ours][:NUM_USED]
    times: dict[str, list[float]] = {}
    for record in alike:
        for step in record.timings:
            times.setdefault(step.name, []).append(step.duration_s)
    return {name: statistics.median(durations) for name, durations in times.items()}


def _records(run_root: Path, but: str) -> Iterator[_Record]:
    """The newest records."""
    num_seen = 0
    for name in newest(run_root, but):
        with contextlib.suppress(OSError, *UNDECODABLE):  # running, or not a run
            content = RunDir(run_root / name).record.read_bytes()
            num_seen += 1
            yield _decoder.decode(content)
        if num_seen == NUM_SEEN:
            return


def newest(run_root: Path, but: str = "") -> list[str]:
    """The names of the folders of runs, which begin with their time, newest first."""
    try:
        names = os.listdir(run_root)
    except OSError:
        return []
    # Not links such as "latest", which name a run twice.
    return sorted((n for n in names if n[:1].isdigit() and n != but), reverse=True)
