"""The runs of a submission, read and sorted by scenario and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sut.errors import InputError
from sut.inputs import hashes
from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode, load_plan
from sut.results import record
from sut.results.record import PhaseRecord, Record
from sut.rundir import RunDir

SCENARIOS = {  # MLCommons' names of their folders
    Scenario.OFFLINE: "Offline",
    Scenario.SERVER: "Server",
    Scenario.INTERACTIVE: "Interactive",
    Scenario.SINGLE_STREAM: "SingleStream",
}


class Run(NamedTuple):
    """A run and its record."""

    run_dir: RunDir
    record: Record

    @property
    def name(self) -> str:
        return self.run_dir.root.name


class Part(NamedTuple):
    """One test of a run."""

    run: Run
    phase: PhaseRecord

    @property
    def folder(self) -> Path:
        return self.run.run_dir.loadgen(self.phase.name)


class Result(NamedTuple):
    """What a submission shows of one scenario; None for a test that no run has."""

    scenario: Scenario
    performance: Part | None
    accuracy: Part | None
    compliance: Part | None

    @property
    def parts(self) -> list[Part]:
        every = (self.performance, self.accuracy, self.compliance)
        return [part for part in every if part is not None]

    @property
    def main(self) -> Part:
        return self.parts[0]


def read(folders: Sequence[Path]) -> list[Run]:
    """Each run once. Raises InputError that names every folder that is none."""
    runs: dict[Path, Run] = {}
    mistakes = []
    for folder in folders:
        run_dir = RunDir(folder)
        try:
            runs[run_dir.root] = Run(run_dir, record.read(run_dir.root))
        except InputError as error:
            mistakes.append(str(error))
    if mistakes:
        raise InputError("\n".join(mistakes))
    return list(runs.values())


def changes(run: Run) -> Iterator[str]:
    """Everything in a run's folder that is no longer what its record was made from."""
    run_dir, plan = run.run_dir, run.record.plan
    if run.record.plan_digest != plan.digest():
        yield f"{run_dir.record}: the plan in it does not have the digest in it"
    try:
        if load_plan(run_dir.plan).digest() != run.record.plan_digest:
            yield f"{run_dir.plan}: changed since the run"
    except InputError as error:
        yield f"{run_dir.plan}: can't be read: {error}"
    try:
        if run_dir.user_conf.read_text() != plan.user_conf():
            yield f"{run_dir.user_conf}: changed since the run"
    except (OSError, UnicodeDecodeError) as error:
        yield f"{run_dir.user_conf}: can't be read: {error}"
    for phase in run.record.phases:
        yield from _changed_files(run_dir.loadgen(phase.name), phase.file_sha256)


def _changed_files(folder: Path, sha256: dict[str, str]) -> Iterator[str]:
    if not sha256:
        yield f"{folder}: the record has no hashes of its files, so they may be others. Run again"
    for name, expected in sha256.items():
        try:
            found = hashes.sha256_of(folder / name)
        except OSError as error:
            yield f"{folder / name}: can't be read: {error.strerror}"
        else:
            if found != expected:
                yield f"{folder / name}: changed since the run"


def results(runs: Sequence[Run]) -> tuple[list[Result], list[str]]:
    """The tests by scenario, and a line for each that several runs have: the newest is taken."""
    found: dict[tuple[Scenario, str], Part] = {}
    twice = []
    for run in sorted(runs, key=lambda run: run.record.created_utc):
        for phase in run.record.phases:
            key = (run.record.plan.scenario, phase.name)
            if key in found:
                others = f"{found[key].run.name} and {run.name}"
                twice.append(f"{SCENARIOS[key[0]]}, {phase.name}: {others} both have it: give one")
            found[key] = Part(run, phase)
    scenarios = [scenario for scenario in SCENARIOS if any(s is scenario for s, _ in found)]
    return [_result(scenario, found) for scenario in scenarios], twice


def _result(scenario: Scenario, found: dict[tuple[Scenario, str], Part]) -> Result:
    return Result(
        scenario=scenario,
        performance=found.get((scenario, Mode.PERFORMANCE)),
        accuracy=found.get((scenario, Mode.ACCURACY)),
        compliance=found.get((scenario, Mode.COMPLIANCE)),
    )
