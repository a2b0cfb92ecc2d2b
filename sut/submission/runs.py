"""The runs of a submission, by scenario and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sut.errors import Errors, InputError
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
TESTS = (Mode.PERFORMANCE, Mode.ACCURACY, Mode.COMPLIANCE)


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


def changes(run: Run) -> Iterator[str]:
    """Every file of a run that changed after its record was written."""
    run_dir, plan = run.run_dir, run.record.plan
    if run.record.plan_digest != plan.digest():
        yield f"{run_dir.record}: its plan does not match its plan_digest"
    try:
        if load_plan(run_dir.plan).digest() != run.record.plan_digest:
            yield f"{run_dir.plan}: changed since the run"
    except InputError as error:
        yield f"{run_dir.plan}: cannot read it: {error}"
    try:
        if run_dir.user_conf.read_text() != run.record.user_conf:
            yield f"{run_dir.user_conf}: changed since the run"
    except (OSError, UnicodeDecodeError) as error:
        yield f"{run_dir.user_conf}: cannot read it: {error}"
    for phase in run.record.phases:
        yield from _changed_files(run_dir.loadgen(phase.name), phase.file_sha256)


def _changed_files(folder: Path, sha256: dict[str, str]) -> Iterator[str]:
    if not sha256:
        yield f"{folder}: the record has no hashes of its files; run again"
    for name, expected in sha256.items():
        try:
            found = hashes.sha256_of(folder / name)
        except OSError as error:
            yield f"{folder / name}: cannot read it: {error.strerror}"
        else:
            if found != expected:
                yield f"{folder / name}: changed since the run"


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
