"""Why runs cannot be submitted."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from sut.plan import config
from sut.plan.benchmark import Benchmark, Compliance
from sut.plan.document import read
from sut.plan.plan import Mode, Plan
from sut.results.record import Hashes, Record
from sut.results.sameness import Facts, Mismatch, mismatches, of_machine, of_record
from sut.submission import source
from sut.submission.runs import SCENARIOS, Result, Run

Division = Literal["closed", "open"]

# One code path: a scenario's tests share these facts, and all scenarios the system and the model.
OF_SCENARIO = (
    "plan.benchmark",
    "plan.scenario",
    "plan.preset",
    "plan.round",
    "plan.model",
    "plan.dataset",
    "plan.generation",
    "plan.engine",
    "plan.device",
    "plan.cpu",
    "plan.replicas",
    "plan.loadgen_name",
    "plan.loadgen_settings",
    "plan.compliance",
    "plan.env",
)
OF_DATA = (*("plan.dataset", "plan.generation", "data_sha256", "tokens_sha256"),)
OF_MACHINE = (
    "cpu_model",
    "num_sockets",
    "num_cores",
    "memory_gib",
    "gpus",
    "gpu_driver",
    "os",
    "loadgen",
    "packages",
    "image_sha256",
)
OF_SUBMISSION = (
    "plan.benchmark",
    "plan.preset",
    "plan.round",
    "plan.site",
    "plan.model",
    "plan.dataset",
    "plan.generation",
    "plan.device",
    "plan.engine.kind",
    "plan.engine.dtype",
    *OF_MACHINE,
    "gpus_used",
    "git.commit",
    "model_sha256",
    "data_sha256",
    "tokens_sha256",
)


def benchmark_name(plan: Plan) -> str:
    """MLCommons' name of the plan's benchmark; the plan's own if it is not one of theirs."""
    official = _official().get(plan.model.loadgen_name)
    return official.name if official else plan.benchmark


@functools.cache
def _official() -> dict[str, Benchmark]:
    """MLCommons' benchmarks, as shipped, by LoadGen's names of their models."""
    found = [msgspec.convert(read(path), Benchmark) for path in config.all_shipped("benchmarks")]
    return {each.model.loadgen_name: each for each in found if each.official}


def why_not(runs: Sequence[Run], results: Sequence[Result], division: Division) -> list[str]:
    """Every reason why these runs cannot be submitted."""
    reasons = _by_run([(run.name, reason) for run in runs for reason in _of_run(run, division)])
    reasons += _of_inputs(runs)
    reasons += _of_completeness(runs, results, division)
    return list(dict.fromkeys(reasons))


def _by_run(found: Sequence[tuple[str, str]]) -> list[str]:
    """Each reason once, with its runs."""
    names: dict[str, list[str]] = {}
    for name, reason in found:
        names.setdefault(reason, []).append(name)
    return [f"{reason} ({', '.join(dict.fromkeys(each))})" for reason, each in names.items()]


def _of_run(run: Run, division: Division) -> Iterator[str]:
    found = run.record
    if not found.phases:
        yield "the run has no finished test"
    if found.status != "completed":
        why = f": {found.failure.code}" if found.failure else ""
        yield f"the run is {found.status}{why}"
    for phase in found.phases:
        for check in phase.verdict.reasons:
            if division == "open" and check.code.startswith("accuracy_"):
                continue  # open results report their accuracy and need not reach a gate
            yield f"INVALID: {phase.name}, {check.code}: {check.text}"
    if found.plan.sweep:
        yield "the run is a sweep: submit one at the load that you choose"
    for why in found.not_official_because:
        yield f"not official: {why}"
    yield from _of_nodes(run)
    yield from _of_data(run)
    yield from _of_source(run)


def _of_nodes(run: Run) -> Iterator[str]:
    """A submission describes one kind of node."""
    first = run.record.environment
    for other in run.record.nodes:
        one, another = (of_machine(each, Hashes()) for each in (first, other))
        if differing := mismatches(one, another, OF_MACHINE):
            yield f"{other.hostname} differs from {first.hostname}: {_keys(differing)}"


def _of_data(run: Run) -> Iterator[str]:
    plan, sha256 = run.record.plan, run.record.hashes.data
    shipped = _official().get(plan.model.loadgen_name)
    if shipped is None:
        yield f"model.loadgen_name is {plan.model.loadgen_name}, which is not an MLPerf model"
        return
    official = shipped.dataset
    if official.sha256 and sha256 != official.sha256:
        yield (
            f"the data's sha256 is {sha256}, but that of MLCommons' {official.name} is "
            f"{official.sha256}"
        )


def _of_source(run: Run) -> Iterator[str]:
    git = run.record.environment.git
    if git is None:
        yield "the commit of the source is unknown; run from a checkout"
    elif git.dirty:
        yield "the source had uncommitted changes; commit them and run again"
    elif not source.has(git.commit):
        yield f"commit {git.commit} of the source is not in this checkout; run git fetch"


def _of_inputs(runs: Sequence[Run]) -> Iterator[str]:
    """What all runs of a submission must share, and those of a scenario."""
    for scenario in SCENARIOS:
        same = [run for run in runs if run.record.plan.scenario is scenario]
        yield from _of_every_test(same, OF_SCENARIO)
    yield from _of_every_test(runs, OF_SUBMISSION)


def _of_every_test(runs: Sequence[Run], keys: Sequence[str]) -> Iterator[str]:
    """Where runs differ. Data of a test that has its own is compared among the runs of this
    test."""
    apart = _with_own_data(runs)
    by_data: dict[Mode | None, list[Run]] = {}
    for run in runs:
        mode = run.record.plan.mode
        by_data.setdefault(mode if mode in apart else None, []).append(run)
    yield from _differences(runs, [key for key in keys if not apart or key not in OF_DATA])
    for some in by_data.values() if apart else ():
        yield from _differences(some, [key for key in keys if key in OF_DATA])


def _with_own_data(runs: Sequence[Run]) -> set[Mode]:
    """The tests that have their own data in the official benchmark of these runs."""
    official = _official().get(runs[0].record.plan.model.loadgen_name) if runs else None
    if official is None:
        return set()
    apart = {Mode.ACCURACY} if official.accuracy_test else set()
    has_test07 = official.compliance is not None and official.compliance.test07 is not None
    return apart | ({Mode.TEST07} if has_test07 else set())


def _differences(runs: Sequence[Run], keys: Sequence[str]) -> Iterator[str]:
    """A line for each run that differs from the first in one of these facts."""
    for run in runs[1:]:
        if differing := mismatches(_facts(runs[0].record), _facts(run.record), keys):
            yield f"{run.name}: differs from {runs[0].name}: {_keys(differing)}"


def _facts(record: Record) -> Facts:
    return of_record(record) | {"gpus_used": [node.gpus for node in record.plan.nodes]}


def _keys(differing: Sequence[Mismatch]) -> str:
    return ", ".join(each.key for each in differing)


def _compliance_tests(plan: Plan) -> list[Mode]:
    tests = plan.compliance or Compliance()
    first = [Mode.COMPLIANCE] if tests.on_performance_data else []
    return [*first, Mode.TEST07] if tests.test07 else first


def _of_completeness(
    runs: Sequence[Run], results: Sequence[Result], division: Division
) -> Iterator[str]:
    for result in results:
        needed = [Mode.PERFORMANCE, Mode.ACCURACY]
        if division == "closed":
            needed += _compliance_tests(result.main.run.record.plan)
        for mode in needed:
            if mode not in result.parts:
                name = SCENARIOS[result.scenario]
                yield f"{name}: no run has the {mode} test; run it with --mode {mode}"
    if division == "open" or not runs:
        return
    done = {result.scenario for result in results}
    official = _official().get(runs[0].record.plan.model.loadgen_name)
    if official is None:
        return
    if official.not_run:
        yield f"closed {official.name} needs {', '.join(official.not_run)}, not run by this harness"
    for group in official.required:
        if not done.intersection(group):
            names = " or ".join(SCENARIOS[scenario] for scenario in group)
            yield f"closed {official.name} needs {names}; there is no such run"
