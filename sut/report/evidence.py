"""What a run left of a phase beside its record: its samples, its progress, its nodes' meters."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.machine.meters import Reading
from sut.results import sample_log, telemetry, work
from sut.results.progress import Line
from sut.results.record import Record
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Of one phase; empty where there is none. ``problem`` says what could not be read."""

    samples: SampleLog | None = None
    lines: list[Line] = []
    readings: dict[str, list[Reading]] = {}  # by node, of the whole run
    problem: str | None = None


def read(record: Record, run_dir: RunDir) -> dict[str, Evidence]:
    """The evidence of every phase that was begun, by its name."""
    readings = {path.stem: telemetry.read(path) for path in run_dir.telemetry_files()}
    phases = [phase for phase in record.plan.phases if run_dir.loadgen(phase).is_dir()]
    return {phase: _of_phase(run_dir, phase, readings) for phase in phases}


def _of_phase(run_dir: RunDir, phase: str, readings: dict[str, list[Reading]]) -> Evidence:
    samples, problem = _samples(run_dir.samples(phase))
    return Evidence(
        samples=samples,
        lines=work.lines_of(run_dir.progress, phase),
        readings=readings,
        problem=problem,
    )


def _samples(path: Path) -> tuple[SampleLog | None, str | None]:
    try:
        return sample_log.read(path), None
    except InputError as error:
        return None, str(error)
