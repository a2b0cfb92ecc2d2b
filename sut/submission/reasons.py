"""Why runs can't be submitted: every reason, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from sut.machine.environment import Environment
from sut.plan import config
from sut.plan.benchmark import Benchmark, Scenario
from sut.plan.document import read
from sut.plan.plan import Mode, Plan
from sut.results.record import Record
from sut.submission import source
from sut.submission.runs import SCENARIOS, Result, Run

Division = Literal["closed", "open"]

# By LoadGen's names of their models.
BENCHMARKS = {"llama3_1-8b": "llama3.1-8b", "llama3_1-8b-edge": "llama3.1-8b-edge"}
REQUIRED: dict[str, tuple[tuple[Scenario, ...], ...]] = {  # one of each group, in closed
    "llama3.1-8b": ((Scenario.OFFLINE,), (Scenario.SERVER, Scenario.INTERACTIVE)),
    "llama3.1-8b-edge": ((Scenario.OFFLINE,), (Scenario.SINGLE_STREAM,)),
}
# One code path: a scenario's tests share these, and all scenarios the system and the model.
OF_SCENARIO = (
    "benchmark",
    "scenario",
    "preset",
    "round",
    "model",
    "dataset",
    "generation",
    "engine",
    "device",
    "cpu",
    "replicas",
    "loadgen_name",
    "loadgen_settings",
    "compliance",
    "env",
)
OF_SUBMISSION = (
    "benchmark",
    "preset",
    "round",
    "site",
    "model",
    "dataset",
    "generation",
    "device",
)
OF_ENGINE = ("kind", "dtype")
OF_MACHINE = (
    "cpu_model",
    "num_sockets",
    "num_cores",
    "memory_gib",
    "gpu_driver",
    "os",
    "loadgen",
    "packages",
    "image_sha256",
)


def benchmark_name(plan: Plan) -> str:
    """MLCommons' name of the plan's benchmark; the plan's own where it is none of theirs."""
    return BENCHMARKS.get(plan.model.loadgen_name, plan.benchmark)


def why_not(runs: Sequence[Run], results: Sequence[Result], division: Division) -> list[str]:
    """Every reason that keeps these runs out of a submission; none when they may be submitted."""
    reasons = _by_run([(run.name, reason) for run in runs for reason in _of_run(run, division)])
    reasons += _of_plans(runs)
    reasons += _of_systems(runs)
    reasons += _of_completeness(runs, results, division)
    return list(dict.fromkeys(reasons))


def _by_run(found: Sequence[tuple[str, str]]) -> list[str]:
    """Each reason once, with the runs it is of."""
    names: dict[str, list[str]] = {}
    for name, reason in found:
        names.setdefault(reason, []).append(name)
    return [f"{reason} ({', '.join(dict.fromkeys(each))})" for reason, each in names.items()]


def _of_run(run: Run, division: Division) -> Iterator[str]:
    found = run.record
    if not found.phases:
        yield "the run has no test that came to its end"
    if found.status != "completed":
        why = f": {found.failure.code}" if found.failure else ""
        yield f"the run is {found.status}{why}"
    for phase in found.phases:
        for check in phase.verdict.reasons:
            if division == "open" and check.code.startswith("accuracy_"):
                continue  # open results show their accuracy and need not reach a gate
            yield f"INVALID: {phase.name}, {check.code}: {check.text}"
    for why in found.plan.not_official_because:
        yield f"not official: {why}"
    yield from _of_nodes(run)
    yield from _of_data(run)
    yield from _of_source(run)


def _of_nodes(run: Run) -> Iterator[str]:
    """A submission describes one kind of node."""
    first = run.record.environment
    for other in run.record.nodes:
        if names := _unlike(_machine(first), _machine(other)):
            yield f"{other.hostname} is not as {first.hostname}: {', '.join(names)}"


def _of_data(run: Run) -> Iterator[str]:
    plan, sha256 = run.record.plan, run.record.hashes.data
    name = BENCHMARKS.get(plan.model.loadgen_name)
    if name is None:
        yield f"LoadGen's model name {plan.model.loadgen_name} is none of MLPerf's"
        return
    official = _shipped(name).dataset
    if official.sha256 and sha256 != official.sha256:
        yield (
            f"the data's sha256 is {sha256}, that of MLCommons' {official.name} is "
            f"{official.sha256}"
        )


def _shipped(name: str) -> Benchmark:
    return msgspec.convert(read(config.shipped("benchmarks", name)), Benchmark)


def _of_source(run: Run) -> Iterator[str]:
    git = run.record.environment.git
    if git is None:
        yield "the commit of the source it ran is not known: run from a checkout"
    elif git.dirty:
        yield "its source had changes that were not committed"
    elif not source.has(git.commit):
        yield f"its source, commit {git.commit}, is not in this checkout: git fetch"


def _of_plans(runs: Sequence[Run]) -> Iterator[str]:
    """What the plans of a submission must share, and those of a scenario."""
    for scenario in SCENARIOS:
        same = [run for run in runs if run.record.plan.scenario is scenario]
        yield from _differences(same, lambda record: _fields(record.plan, OF_SCENARIO))
    yield from _differences(runs, lambda record: _fields(record.plan, OF_SUBMISSION))
    yield from _differences(
        runs, lambda r: {f"engine.{k}": v for k, v in _fields(r.plan.engine, OF_ENGINE).items()}
    )


def _of_systems(runs: Sequence[Run]) -> Iterator[str]:
    yield from _differences(runs, _system)


def _system(record: Record) -> dict[str, Any]:
    environment, plan = record.environment, record.plan
    return {
        **_machine(environment),
        "commit": environment.git and environment.git.commit,
        "number of nodes": len(plan.nodes),
        "GPUs used": [node.gpus for node in plan.nodes],
        "the model's sha256": record.hashes.model,
        "the data's sha256": record.hashes.data,
    }


def _machine(environment: Environment) -> dict[str, Any]:
    gpus = sorted((gpu.name, gpu.memory_mib or 0) for gpu in environment.gpus)
    return _fields(environment, OF_MACHINE) | {"gpus": gpus}


def _unlike(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name, value in one.items() if other[name] != value]


def _fields(struct: msgspec.Struct, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in names}


def _differences(
    runs: Sequence[Run], fields_of: Callable[[Record], dict[str, Any]]
) -> Iterator[str]:
    """A line for each run that is not as the first in one of these fields."""
    if not runs:
        return
    first = fields_of(runs[0].record)
    for run in runs[1:]:
        if names := _unlike(first, fields_of(run.record)):
            yield f"{run.name}: made otherwise than {runs[0].name}: {', '.join(names)}"


def _of_completeness(
    runs: Sequence[Run], results: Sequence[Result], division: Division
) -> Iterator[str]:
    for result in results:
        needed = [Mode.PERFORMANCE, Mode.ACCURACY]
        if division == "closed" and result.main.run.record.plan.compliance is not None:
            needed.append(Mode.COMPLIANCE)
        have = {part.phase.name for part in result.parts}
        for mode in needed:
            if mode not in have:
                name = SCENARIOS[result.scenario]
                yield f"{name}: no run has its {mode} test: --mode {mode}, or all at once"
    if division == "open" or not runs:
        return
    done = {result.scenario for result in results}
    name = benchmark_name(runs[0].record.plan)
    for group in REQUIRED.get(name, ()):
        if not done.intersection(group):
            names = " or ".join(SCENARIOS[scenario] for scenario in group)
            yield f"closed {name} needs {names}, and no run is of it"
