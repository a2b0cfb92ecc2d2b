"""The runs of a submission, by scenario and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sut.errors import Errors, InputError
from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.results import record
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record
from sut.rundir import RunDir

SCENARIOS = {  # MLCommons' names of their folders
    Scenario.OFFLINE: "Offline",
    Scenario.SERVER: "Server",
    Scenario.INTERACTIVE: "Interactive",
    Scenario.SINGLE_STREAM: "SingleStream",
}
TESTS = (Mode.PERFORMANCE, Mode.ACCURACY, Mode.COMPLIANCE, Mode.TEST07)


class Run(NamedTuple):
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
    """The tests of one scenario by mode, in the order of TESTS."""

    scenario: Scenario
    parts: Mapping[str, Part]

    @property
    def main(self) -> Part:
        return next(iter(self.parts.values()))


def read(folders: Sequence[Path]) -> list[Run]:
    """Each run once. Raises InputError that names every folder that is not a run."""
    runs: dict[Path, Run] = {}
    errors = Errors()
    for folder in folders:
        run_dir = RunDir(folder)
        try:
            runs[run_dir.root] = Run(run_dir, record.read(run_dir.root))
        except InputError as error:
            errors.append(error)
    errors.raise_all()
    return list(runs.values())


def results(runs: Sequence[Run]) -> tuple[list[Result], list[str]]:
    """The tests by scenario, the newest of each; and a line for each test in several runs."""
    found: dict[Scenario, dict[str, Part]] = {}
    twice = []
    for run in sorted(runs, key=lambda run: run.record.created_utc):
        scenario = run.record.plan.scenario
        parts = found.setdefault(scenario, {})
        for phase in run.record.phases:
            if phase.name in parts:
                names = f"{parts[phase.name].run.name} and {run.name}"
                twice.append(
                    f"{SCENARIOS[scenario]}, {phase.name}: in both {names}; give one of them"
                )
            parts[phase.name] = Part(run, phase)
    scenarios = [scenario for scenario in SCENARIOS if found.get(scenario)]
    return [_result(scenario, found[scenario]) for scenario in scenarios], twice


def _result(scenario: Scenario, parts: Mapping[str, Part]) -> Result:
    return Result(scenario, {mode: parts[mode] for mode in TESTS if mode in parts})
