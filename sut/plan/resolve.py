"""From a benchmark and a site to a plan. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sut.errors import Errors, nearest
from sut.plan import contradictions, duration, engine_args, fit, official, slurm_options
from sut.plan.alternatives import Alternatives
from sut.plan.benchmark import (
    AUTO,
    Accuracy,
    Benchmark,
    EngineKind,
    Gate,
    Preset,
    Scenario,
    ScenarioSettings,
)
from sut.plan.placement import Placement, place
from sut.plan.plan import Mode, Plan, load_of_sweep, tests, uses_model
from sut.plan.site import Site, SiteNode
from sut.plan.slurm_options import Slurm

GET_INPUTS = "docs/benchmarks.md#get-the-model-and-the-data"  # of MLCommons' benchmarks


def resolve(
    benchmark: Benchmark,
    site: Site,
    *,
    scenario: Scenario,
    mode: Mode,
    preset: Preset,
    usable_cpus: Sequence[int],
    nodes: str = "",
    model_size: fit.ModelSize | None = None,
    vllm_version: str | None = None,
    sets: Sequence[str] = (),
    of_campaign: Sequence[str] = (),
    repeat: int = 1,
    sweep: tuple[float, ...] = (),
) -> Plan:
    """The plan of one run, with ``repeat`` performance tests at each load of ``sweep``, or at that
    of the settings.

    ``nodes`` selects nodes of the site: a number, a hostlist, ``all``; empty for one.
    ``model_size`` is None if the model cannot be read on this machine; its size is then not
    checked. ``vllm_version`` is that of the engines, None where it is unknown, as in an image.
    ``sets`` are the changes already applied to the two inputs; those in ``of_campaign``
    are from a campaign's file. Raises InputError that lists every error.
    """
    errors = Errors()
    if benchmark.accuracy_test is not None and mode is Mode.ACCURACY:
        benchmark = msgspec.structs.replace(
            benchmark,
            dataset=benchmark.accuracy_test.dataset,
            generation=benchmark.accuracy_test.generation,
        )
    apart = benchmark.compliance.test07 if benchmark.compliance else None
    if apart is not None and mode is Mode.TEST07:
        benchmark = msgspec.structs.replace(
            benchmark, dataset=apart.dataset, accuracy=_only(apart.gates, benchmark.accuracy)
        )
    settings = _settings(benchmark, scenario, preset, errors)
    loadgen_name = settings.loadgen_name or benchmark.model.loadgen_name
    model_path = dataset_path = ""
    if not benchmark.model.embedded and uses_model(benchmark.engine, benchmark.dataset):
        model_path = _path("model", benchmark, site.models, "models", site, errors)
    if benchmark.dataset.kind.is_users:
        dataset_path = _path("data set", benchmark, site.datasets, "datasets", site, errors)
    checked = model_size if benchmark.engine.kind is EngineKind.VLLM else None

    def fits(node: SiteNode) -> bool:
        return checked is None or fit.fits(checked, benchmark.engine, site, node)

    others = Alternatives(
        size=checked, engine=benchmark.engine, site=site, nodes=nodes, usable_cpus=usable_cpus
    )
    placed = place(benchmark.engine, site, nodes, usable_cpus, errors, fits, others.hint)
    settings = _with_site_load(
        settings, benchmark, site, scenario, preset, len(placed.replicas), sets
    )
    contradictions.check(benchmark, site, scenario, mode, settings, len(placed.nodes), errors)
    if benchmark.engine.kind is EngineKind.VLLM:
        engine_args.check(benchmark.engine.extra_args, errors, vllm_version)
    if checked is not None:
        on = placed.site_nodes or site.nodes  # all, where no placement was found
        fit.check_model(checked, benchmark.engine, site, on, errors, others.hint)
    num_samples = benchmark.dataset.num_samples
    run_s = duration.of_tests(
        scenario,
        tests(mode, benchmark.compliance, repeat * max(1, len(sweep))),
        settings,
        num_samples,
        lambda test: load_of_sweep(test, sweep, repeat),
        benchmark.compliance,
    )
    slurm = _slurm(site, placed, run_s, settings, errors)
    errors.raise_all()
    because = official.why_not(benchmark, preset, sets, of_campaign)
    is_vllm = benchmark.engine.kind is EngineKind.VLLM
    return Plan(
        benchmark=benchmark.name,
        site=site.name,
        scenario=scenario,
        mode=mode,
        repeat=repeat,
        sweep=sweep,
        preset=preset,
        official=not because,
        not_official_because=because,
        round=benchmark.round,
        model=msgspec.structs.replace(benchmark.model, path=model_path),
        dataset=msgspec.structs.replace(benchmark.dataset, path=dataset_path),
        generation=benchmark.generation,
        engine=benchmark.engine,
        device=site.device,
        cpu=site.cpu,
        nodes=placed.nodes,
        candidates=placed.candidates,
        replicas=placed.replicas,
        host=site.host,
        interface=site.interface,
        slurm=slurm,
        container=site.container,
        cache=site.cache,
        loadgen_name=loadgen_name,
        loadgen_settings=settings,
        accuracy=benchmark.accuracy,
        compliance=benchmark.compliance,
        timeouts=site.timeouts,
        node_local=site.node_local,
        env=site.env,
        price_per_node_hour=site.price_per_node_hour,
        node_prices={
            node.name: node.price_per_node_hour
            for node in placed.site_nodes
            if node.price_per_node_hour is not None
        },
        measure_overhead=_measures_overhead(benchmark, site, preset),
        fit=fit.describe(model_size, benchmark.engine, site, placed.site_nodes)
        if is_vllm
        else None,
    )


def _only(gates: dict[str, Gate], accuracy: Accuracy | None) -> Accuracy:
    """The accuracy that TEST07 needs: MLCommons' README gives a gate and no reference."""
    program = accuracy.program if accuracy else ""
    return Accuracy(reference={}, gates=gates, program=program)


def _measures_overhead(benchmark: Benchmark, site: Site, preset: Preset) -> bool:
    """By default not where the harness is the result, nor in the shortest runs."""
    if site.measure_overhead is not None:
        return site.measure_overhead
    return benchmark.engine.kind is not EngineKind.REPLAY and preset is not Preset.QUICK


def _settings(
    benchmark: Benchmark, scenario: Scenario, preset: Preset, errors: Errors
) -> ScenarioSettings:
    """The scenario's settings, overridden by the preset's."""
    base = benchmark.scenarios.of(scenario)
    if base is None:
        errors.add(
            f"benchmark {benchmark.name} has no scenario {scenario}",
            hint=f"choose one of: {', '.join(benchmark.scenarios.known())} (--scenario)",
        )
        return ScenarioSettings(target_qps=None if scenario is Scenario.SINGLE_STREAM else 1.0)
    over = benchmark.presets.of(preset).of(scenario)
    if over is None:
        known = ", ".join(p for p in Preset if benchmark.presets.of(p).of(scenario) is not None)
        errors.add(
            f"benchmark {benchmark.name} has no preset {preset} for scenario {scenario}",
            hint=f"choose one of: {known} (--preset)",
        )
        return base
    given = {k: v for k, v in msgspec.structs.asdict(over).items() if v not in (None, "")}
    return msgspec.structs.replace(base, **given)


def _with_site_load(
    settings: ScenarioSettings,
    benchmark: Benchmark,
    site: Site,
    scenario: Scenario,
    preset: Preset,
    num_replicas: int,
    sets: Sequence[str],
) -> ScenarioSettings:
    """The settings with the site's load for this many replicas, unless ``sets`` has a load."""
    rate = site.target_qps.get(benchmark.name, {}).get(scenario)
    changed = {change.partition("=")[0].strip() for change in sets}
    given = {f"{of}.{scenario}.target_qps" for of in ("scenarios", f"presets.{preset}")}
    if rate is None or changed & given:
        return settings
    return msgspec.structs.replace(settings, target_qps=rate * max(1, num_replicas))


def _path(
    what: str, benchmark: Benchmark, paths: dict[str, str], key: str, site: Site, errors: Errors
) -> str:
    name = benchmark.model.name if key == "models" else benchmark.dataset.name
    if name not in paths:
        download = f"; to download it: {GET_INPUTS}" if benchmark.official else ""
        errors.add(
            f"site {site.name} has no path for the {what} '{name}'{nearest(name, paths)}",
            hint=f"""--set 'site.{key}."{name}"=/path', or add it to {key}: in the site's file"""
            f"{download}",
        )
    return paths.get(name, "")


def _slurm(
    site: Site, placed: Placement, run_s: float, settings: ScenarioSettings, errors: Errors
) -> Slurm | None:
    """The Slurm options of a run that measures for ``run_s`` seconds."""
    asked = site.slurm
    if asked is None or not placed.nodes:  # an error is already recorded
        return None
    return slurm_options.of_site(
        asked,
        gpus=[node.gpus for node in placed.nodes],
        time_min=duration.time_min(site, run_s, errors, measures_load=settings.target_qps == AUTO),
        errors=errors,
    )
