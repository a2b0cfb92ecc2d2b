"""From a request to a plan: reads the configs and this machine, resolves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.errors import Errors, InputError
from sut.inputs import model, model_config
from sut.launch import default_site
from sut.launch.notices import NOBODY, Notices
from sut.launch.options import DEFAULT_BENCHMARK, given_root
from sut.machine import environment
from sut.plan import config, fit, keys
from sut.plan.benchmark import AUTO, Benchmark, Preset, Scenario
from sut.plan.document import keys_of
from sut.plan.plan import Mode, OnReplicaLoss, Plan
from sut.plan.resolve import resolve
from sut.plan.site import Site
from sut.values import NonNegativeInt, PositiveFloat, PositiveInt, Struct


class RunRequest(Struct, frozen=True, kw_only=True):
    """One run, as the user asks for it. An empty ``site`` means the default one; an empty ``root``,
    the run root of SUT_RUN_ROOT or of the site."""

    benchmark: str = DEFAULT_BENCHMARK
    site: str = ""
    nodes: str = ""
    scenario: Scenario = Scenario.SERVER
    mode: Mode = Mode.PERFORMANCE
    preset: Preset = Preset.SMOKE
    sets: tuple[str, ...] = ()
    campaign_sets: tuple[str, ...] = ()  # applied before ``sets``
    root: str = ""
    keep_engine_min: NonNegativeInt = 0
    stop_when_hopeless: bool = False
    on_replica_loss: OnReplicaLoss = OnReplicaLoss.FAIL
    repeat: PositiveInt = 1  # number of performance tests at each load
    sweep: tuple[PositiveFloat, ...] = ()  # loads, queries/s
    tune: bool = False  # search for the highest VALID load
    notify: str | None = None  # None: the site's


def make_plan(request: RunRequest) -> tuple[Plan, Path, Notices]:
    """The plan, the folder for its run directory, and who is notified. Raises InputError."""
    where = request.site or default_site.default()
    errors = Errors()
    of_campaign = _full_keys(request.campaign_sets, request.scenario, errors)
    sets = of_campaign + _full_keys(request.sets, request.scenario, errors)
    _check_repeated(request)
    if request.sweep:
        _check_swept(request, sets)
        sets.append(f"scenarios.{request.scenario}.target_qps={request.sweep[0]!r}")
    if request.tune:
        _check_tuned(request, sets)
        sets.append(f"scenarios.{request.scenario}.target_qps={AUTO}")
    try:
        benchmark, site = config.load(request.benchmark, where, sets)
    except InputError as error:
        errors.append(error)
    errors.raise_all()
    plan = resolve(
        benchmark,
        site,
        scenario=request.scenario,
        mode=request.mode,
        preset=request.preset,
        usable_cpus=sorted(os.sched_getaffinity(0)),
        nodes=request.nodes,
        model_size=_model_size(benchmark, site),
        vllm_version=_vllm_version(site),
        sets=sets,
        of_campaign=of_campaign,
        repeat=request.repeat,
        sweep=request.sweep,
    )
    plan = msgspec.structs.replace(
        plan,
        tune=request.tune,
        stop_when_hopeless=request.stop_when_hopeless,
        on_replica_loss=request.on_replica_loss,
    )
    _check_kept(request)
    kept = keeping(plan, request.keep_engine_min)
    return kept, _run_root(request, sets, site), _notices(request, site)


def _full_keys(changes: Sequence[str], scenario: Scenario, errors: Errors) -> list[str]:
    """The ``--set`` options with whole keys, without those that have an error."""
    found = []
    for change in changes:
        try:
            found.append(keys.full(change, scenario))
        except InputError as error:
            errors.append(error)
    return found


def _check_repeated(request: RunRequest) -> None:
    """Raise InputError for repeats of a run that has no performance test."""
    if request.repeat > 1 and request.mode not in (Mode.PERFORMANCE, Mode.ALL):
        raise InputError(
            f"--mode {request.mode} cannot be repeated: it has no performance test",
            hint="leave out --repeat",
        )


def _check_kept(request: RunRequest) -> None:
    """Raise InputError for engines of which nobody could start one again."""
    if request.keep_engine_min and request.on_replica_loss is OnReplicaLoss.RESTART:
        raise InputError(
            "--on-replica-loss restart cannot be combined with --keep-engine: kept engines are "
            "another process's, which starts each once",
            hint="leave out one of the two",
        )


def _check_swept(request: RunRequest, sets: Sequence[str]) -> None:
    """Raise InputError for what has no load to change, or two kinds of load."""
    if request.scenario not in (Scenario.SERVER, Scenario.INTERACTIVE):
        raise InputError(
            f"{request.scenario} cannot be swept: target_qps is no load there",
            hint="--scenario server or --scenario interactive; leave out --sweep otherwise",
        )
    if request.mode is not Mode.PERFORMANCE:
        raise InputError(
            f"--mode {request.mode} cannot be combined with --sweep, which makes performance tests",
            hint="leave out --mode",
        )
    if request.tune:
        raise InputError(
            "--sweep cannot be combined with sut.tune, which searches for target_qps",
            hint="leave out --sweep, or use python -m sut.submit --sweep",
        )
    if given := [each for each in sets if keys_of(each)[-1:] == ["target_qps"]]:
        raise InputError(
            f"--set {given[0]} cannot be combined with --sweep target_qps",
            hint="leave out one of the two",
        )


def _check_tuned(request: RunRequest, sets: Sequence[str]) -> None:
    """Raise InputError for what has no load to search for, or a given one."""
    command = "python -m sut.submit"
    if request.benchmark != DEFAULT_BENCHMARK:
        command += f" --config {request.benchmark}"
    if request.scenario is Scenario.SINGLE_STREAM:
        raise InputError(
            "singlestream cannot be tuned: it always has one query at a time",
            hint=f"{command} --scenario singlestream",
        )
    if request.mode not in (Mode.PERFORMANCE, Mode.ALL):
        raise InputError(
            f"--mode {request.mode} cannot be tuned: it has no performance test",
            hint=f"{command} --mode {request.mode}, or leave out --mode",
        )
    if request.on_replica_loss is not OnReplicaLoss.FAIL:
        raise InputError(
            f"--on-replica-loss {request.on_replica_loss} cannot be combined with sut.tune: a "
            "search on fewer replicas finds the load of another system",
            hint="leave out --on-replica-loss",
        )
    if given := [each for each in sets if keys_of(each)[-1:] == ["target_qps"]]:
        raise InputError(
            f"{given[0]} cannot be combined with sut.tune, which searches for target_qps",
            hint=f"leave it out, or offer this load: {command} --set {given[0]}",
        )


def _notices(request: RunRequest, site: Site) -> Notices:
    if request.mode is Mode.PREFLIGHT:  # sut.doctor shows its result itself
        return NOBODY
    return Notices(
        command=site.notify if request.notify is None else request.notify,
        mail_type=(site.slurm and site.slurm.mail_type) or "",
        mail_user=(site.slurm and site.slurm.mail_user) or "",
    )


def _run_root(request: RunRequest, sets: Sequence[str], site: Site) -> Path:
    """The folder for the run: --root, --set site.run_root, SUT_RUN_ROOT, or the site's."""
    if not request.root and any(keys_of(each) == ["site", "run_root"] for each in sets):
        return Path(site.run_root)
    return given_root(request.root) or Path(site.run_root)


def _model_size(benchmark: Benchmark, site: Site) -> fit.ModelSize | None:
    """None if this machine cannot read the model."""
    if benchmark.model.embedded:
        return model.EMBEDDED_SIZE
    path = site.models.get(benchmark.model.name, "")
    return model_config.size(Path(path)) if path else None


def _vllm_version(site: Site) -> str | None:
    """That of this Python, in which engines without a container run; None where it is unknown."""
    if site.container is not None:
        return None
    given = environment.versions(environment.VLLM).values()
    found = {version.partition("+")[0] for version in given}
    return found.pop() if len(found) == 1 else None


def keeping(plan: Plan, minutes: int) -> Plan:
    """The plan, with its engines kept for ``minutes`` after its run. Raises InputError."""
    why = ""
    if plan.container is not None:
        why = f"the container of site {plan.site} ends its engines with each run"
    elif len(plan.nodes) > 1:
        why = f"it works on one node, and the plan has {len(plan.nodes)}"
    if minutes and why:
        raise InputError(
            f"--keep-engine cannot be used here: {why}",
            hint="leave out --keep-engine, or use one node without a container",
        )
    return msgspec.structs.replace(plan, keep_engine_min=minutes)
