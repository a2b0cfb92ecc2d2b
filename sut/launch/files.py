"""Check a file that a user wrote: a benchmark, a site or a campaign."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

from sut.errors import Errors, InputError
from sut.launch import members
from sut.launch.request import RunRequest
from sut.plan import config, document
from sut.plan.benchmark import Benchmark, Compliance, EngineKind, Preset, Scenario
from sut.plan.config import Campaign
from sut.plan.plan import Mode
from sut.plan.resolve import resolve
from sut.plan.site import Device, Site
from sut.units import quantity

ANY_CPUS = range(1024)
_BETWEEN = "\nerror: "  # the errors of one InputError


def check(path: Path) -> str:
    """The file and what it is, in a line. Raises InputError with every error in it."""
    if not path.exists():
        raise InputError(f"{path}: no such file", hint=_files_of(path))
    read = document.read(path)
    kind = config.kind_of(read)
    if kind is None:
        raise InputError(
            f"{path}: neither a benchmark, a site nor a campaign: its keys are "
            f"{', '.join(map(str, read)) or '(none)'}",
            hint="start from a file in configs/, or write a site with: python -m sut.init",
        )
    document.check(read, config.KINDS[kind], path).raise_all()
    if kind == "site":
        config.completed(config.read_as(path, Site), path)  # its errors name the file
    try:
        return f"{path}: {_resolved(kind, path)}"
    except InputError as error:  # between keys, so that no line is wrong
        raise InputError(
            _BETWEEN.join(f"{path}: {each}" for each in str(error).split(_BETWEEN))
        ) from None


def _files_of(path: Path) -> str:
    """The command that checks what the user may have meant by ``path``, or lists its kind."""
    for kind in ("benchmarks", "sites", "campaigns"):
        if found := config.files(kind).get(path.stem):
            return f"python -m sut.validate {shlex.quote(str(found))}"
    kind = path.parent.name if path.parent.name in ("sites", "campaigns") else "benchmarks"
    return f"give the path of a .yaml file; those that exist: python -m sut.list {kind}"


def _resolved(kind: str, path: Path) -> str:
    match kind:
        case "benchmark":
            return _benchmark(config.read_as(path, Benchmark))
        case "site":
            return _site(config.completed(config.read_as(path, Site), path))
        case _:
            return _campaign(config.read_as(path, Campaign))


def _benchmark(benchmark: Benchmark) -> str:
    """Every scenario and preset becomes a plan, on a machine that has all it needs."""
    replay, apart = benchmark.engine.kind is EngineKind.REPLAY, benchmark.accuracy_test
    tests = benchmark.compliance or Compliance()
    machine = Site(
        name="any",
        device=Device.CPU if replay else Device.CUDA,
        models={} if benchmark.model.embedded else {benchmark.model.name: "/model"},
        datasets={each.dataset.name: "/data" for each in (benchmark, apart, tests.test07) if each},
    )
    modes = [Mode.PERFORMANCE, Mode.ACCURACY] if apart else [Mode.ALL]
    modes += [Mode.COMPLIANCE] if apart and tests.on_performance_data else []
    modes += [Mode.TEST07] if tests.test07 else []
    found: dict[str, InputError] = {}  # by message: most errors are the same in each plan
    for scenario in benchmark.scenarios.known():
        for preset, mode in itertools.product(Preset, modes):
            if benchmark.presets.of(preset).of(scenario) is None:
                continue
            try:
                resolve(
                    benchmark,
                    machine,
                    scenario=scenario,
                    mode=mode,
                    preset=preset,
                    usable_cpus=ANY_CPUS,
                )
            except InputError as error:
                found |= {each: InputError(each) for each in str(error).split(_BETWEEN)}
    Errors(found.values()).raise_all()
    names = ", ".join(benchmark.scenarios.known())
    return f"a valid benchmark, {benchmark.name}: {names or 'no scenario'}"


def _site(site: Site) -> str:
    """A plan for all of its nodes must be possible."""
    replay = config.read_as(config.shipped("benchmarks", "replay"), Benchmark)
    resolve(
        replay,
        site,
        scenario=Scenario.SERVER,
        mode=Mode.PERFORMANCE,
        preset=Preset.SMOKE,
        usable_cpus=ANY_CPUS,
        nodes="all",
    )
    where = "this machine" if site.slurm is None else quantity(len(site.nodes), "nodes")
    return f"a valid site, {site.name}: {where}, device {site.device}"


def _campaign(campaign: Campaign) -> str:
    planned = members.plan(campaign, RunRequest())
    return (
        f"a valid campaign, {campaign.name}: {quantity(len(planned), 'runs')} of "
        f"{campaign.benchmark} on {campaign.site}"
    )
