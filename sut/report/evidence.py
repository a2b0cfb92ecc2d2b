"""The files of a phase beside the record: its samples, its progress, its nodes' meters."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sut.errors import InputError
from sut.machine.meters import Reading
from sut.results import sample_log, telemetry, work
from sut.results.progress import Line
from sut.results.record import Record
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Of one phase; empty where a file is missing. ``problem`` is why a file could not be read."""

    samples: SampleLog | None = None
    lines: list[Line] = []
    readings: dict[str, list[Reading]] = {}  # by node, of the whole run
    problem: str | None = None


def read(record: Record, run_dir: RunDir) -> dict[str, Evidence]:
    """The evidence of every phase that started, by the phase's name."""
    readings = {path.stem: telemetry.read(path) for path in run_dir.telemetry_files()}
    names = [test.name for test in record.plan.tests if run_dir.loadgen(test.name).is_dir()]
    return {name: _of_phase(run_dir, name, readings) for name in names}


def _of_phase(run_dir: RunDir, phase: str, readings: dict[str, list[Reading]]) -> Evidence:
    samples = problem = None
    try:
        samples = sample_log.read(run_dir.samples(phase))
    except InputError as error:
        problem = str(error)
    lines = work.lines_of(run_dir.progress, phase)
    return Evidence(samples=samples, lines=lines, readings=readings, problem=problem)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What the plots of a phase need: its evidence, limits and replicas."""

    evidence: Evidence
    limits: Mapping[str, float]  # ms, by TTFT and TPOT
    nodes: Mapping[int, str]  # by replica
    max_num_seqs: int | None = None  # samples that an engine runs at once

    def name(self, replica: int) -> str:
        """A replica, with its node if there are several nodes."""
        node = self.nodes.get(replica, "")
        return f"replica {replica}" + (f" ({node})" if len(set(self.nodes.values())) > 1 else "")


def subject_of(record: Record, name: str, evidence: Evidence) -> Subject:
    """The phase ``name`` of a run. An unfinished phase has the limits of the plan."""
    plan, settings = record.plan, record.plan.loadgen_settings
    phase = next((phase for phase in record.phases if phase.name == name), None)
    replicas = (
        phase.replicas if phase else record.interrupted.replicas if record.interrupted else ()
    )
    limits: dict[str, float | None]
    if phase is None:
        limits = {"TTFT": settings.ttft_latency_ms, "TPOT": settings.tpot_latency_ms}
    else:
        checks = {check.code: check.limit for check in phase.verdict.checks}
        limits = {"TTFT": checks.get("ttft_p99"), "TPOT": checks.get("tpot_p99")}
    return Subject(
        evidence=evidence,
        limits={name: limit for name, limit in limits.items() if limit is not None},
        nodes={replica.index: replica.group for replica in replicas},
        max_num_seqs=plan.engine.max_num_seqs,
    )
