"""From a benchmark and a site to a plan. Pure: all it knows comes in as values."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sut.errors import InputError
from sut.plan import fit
from sut.plan.benchmark import (
    Benchmark,
    DatasetKind,
    EngineKind,
    Preset,
    ReplayAnswers,
    Scenario,
    ScenarioSettings,
)
from sut.plan.document import nearest
from sut.plan.forbidden import forbidden
from sut.plan.placement import Placement, place
from sut.plan.plan import Mode, Plan, Slurm, phases, uses_model
from sut.plan.site import Device, Site


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
    sets: Sequence[str] = (),
) -> Plan:
    """The plan of one run.

    ``nodes`` says which of the site's: a number, names, ``all``; empty is one. ``model_size`` is
    None where the model can't be read here: then nothing is said about its size. ``sets`` are the
    changes already made to the two inputs, for the plan to tell. Raises InputError that lists
    everything that stands in the way.
    """
    mistakes: list[str] = []
    settings = _settings(benchmark, scenario, preset, mistakes)
    loadgen_name = settings.loadgen_name or benchmark.model.loadgen_name
    model_path = _model_path(benchmark, site, mistakes)
    dataset_path = _dataset_path(benchmark, site, mistakes)
    placed = place(benchmark.engine, site, nodes, usable_cpus, mistakes)
    settings = _at_the_sites_rate(
        settings, benchmark, site, scenario, preset, len(placed.replicas), sets
    )
    _check_lengths(benchmark, mistakes)
    _check_settings(scenario, settings, mistakes)
    _check_eager_pipeline(benchmark, site, mistakes)
    if len(placed.nodes) > 1 and not site.interface:
        mistakes.append(
            f"site {site.name} does not say on which network its nodes reach each other: "
            "--set site.interface=eth0, by its name on the nodes (ip -brief address)"
        )
    _check_compliance(benchmark, mode, mistakes)
    if model_size is not None and benchmark.engine.kind is EngineKind.VLLM:
        fit.check_model(model_size, benchmark.engine, site, placed.site_nodes, mistakes)
    tests = phases(mode, benchmark.compliance)
    run_s = fit.measured_s(scenario, tests, settings, benchmark.dataset.num_samples)
    slurm = _slurm(site, placed, run_s, mistakes)
    if mistakes:
        raise InputError("\n".join(mistakes))
    because = _not_official_because(benchmark, preset, sets)
    return Plan(
        benchmark=benchmark.name,
        site=site.name,
        scenario=scenario,
        mode=mode,
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
        env=site.env,
    )


def _settings(
    benchmark: Benchmark, scenario: Scenario, preset: Preset, mistakes: list[str]
) -> ScenarioSettings:
    """The scenario's settings with the preset's laid over them."""
    base = benchmark.scenarios.of(scenario)
    if base is None:
        known = ", ".join(benchmark.scenarios.known())
        mistakes.append(f"benchmark {benchmark.name} has no scenario {scenario}; it has {known}")
        return ScenarioSettings(target_qps=1.0)
    over = benchmark.presets.of(preset).of(scenario)
    if over is None:
        known = ", ".join(p for p in Preset if benchmark.presets.of(p).of(scenario) is not None)
        mistakes.append(
            f"benchmark {benchmark.name} has no preset {preset} for {scenario}; it has {known}"
        )
    return lay_over(base, over or ScenarioSettings())


def _at_the_sites_rate(
    settings: ScenarioSettings,
    benchmark: Benchmark,
    site: Site,
    scenario: Scenario,
    preset: Preset,
    num_replicas: int,
    sets: Sequence[str],
) -> ScenarioSettings:
    """The settings with the load that the site's replicas keep up with, unless one was set."""
    rate = site.target_qps.get(benchmark.name, {}).get(scenario)
    changed = {change.partition("=")[0].strip() for change in sets}
    given = {f"{of}.{scenario}.target_qps" for of in ("scenarios", f"presets.{preset}")}
    if rate is None or changed & given:
        return settings
    return msgspec.structs.replace(settings, target_qps=rate * max(1, num_replicas))


def lay_over(base: ScenarioSettings, over: ScenarioSettings) -> ScenarioSettings:
    """``base`` with every setting that ``over`` gives."""
    given = {k: v for k, v in msgspec.structs.asdict(over).items() if v not in (None, "")}
    return msgspec.structs.replace(base, **given)


def _model_path(benchmark: Benchmark, site: Site, mistakes: list[str]) -> str:
    model = benchmark.model
    if model.embedded or not uses_model(benchmark.engine, benchmark.dataset):
        return ""
    return _site_path("model", model.name, site.models, "models", site, mistakes)


def _dataset_path(benchmark: Benchmark, site: Site, mistakes: list[str]) -> str:
    dataset = benchmark.dataset
    if dataset.kind is not DatasetKind.CNN_EVAL:
        return ""
    return _site_path("data set", dataset.name, site.datasets, "datasets", site, mistakes)


def _site_path(
    what: str, name: str, paths: dict[str, str], key: str, site: Site, mistakes: list[str]
) -> str:
    if name not in paths:
        mistakes.append(
            f"site {site.name} does not say where the {what} '{name}' is{nearest(name, paths)}. "
            f"Put '{name}: /path' under {key}: in the site's file and give it with --site"
        )
    return paths.get(name, "")


def _slurm(site: Site, placed: Placement, run_s: float, mistakes: list[str]) -> Slurm | None:
    """What is asked of Slurm for a run of ``run_s`` measured seconds."""
    asked = site.slurm
    if asked is None or not placed.nodes:  # why there are none is said already
        return None
    num_gpus = placed.nodes[0].gpus
    return Slurm(
        partition=asked.partition,
        account=asked.account,
        qos=asked.qos,
        constraint=asked.constraint,
        gres=f"{asked.gres or 'gpu'}:{num_gpus}" if num_gpus else "",
        cpus_per_task=asked.cpus_per_task,
        memory_gib=asked.memory_gib,
        exclusive=asked.exclusive,
        time_min=fit.time_min(site, run_s, mistakes),
        signal_delay_s=asked.signal_delay_s,
        max_requeues=asked.max_requeues,
        sbatch=asked.sbatch,
    )


def _check_lengths(benchmark: Benchmark, mistakes: list[str]) -> None:
    dataset, generation, engine = benchmark.dataset, benchmark.generation, benchmark.engine
    if generation.min_tokens > generation.max_tokens:
        mistakes.append(
            f"generation.min_tokens {generation.min_tokens} is more than "
            f"max_tokens {generation.max_tokens}"
        )
    if dataset.kind is DatasetKind.SYNTHETIC and not (
        0 < dataset.min_prompt_tokens <= dataset.max_prompt_tokens
    ):
        mistakes.append("a synthetic dataset needs 0 < min_prompt_tokens <= max_prompt_tokens")
    references = engine.replay.answers is ReplayAnswers.REFERENCES
    if engine.kind is EngineKind.REPLAY and references and dataset.kind is DatasetKind.SYNTHETIC:
        mistakes.append(
            "engine.replay.answers is references, and a synthetic dataset has none: set it to echo"
        )
    longest = dataset.max_prompt_tokens + generation.max_tokens
    if longest > engine.max_model_len:
        mistakes.append(
            f"engine.max_model_len {engine.max_model_len} is less than {longest}: prompts of "
            f"{dataset.max_prompt_tokens} tokens and answers of {generation.max_tokens}"
        )


def _check_settings(scenario: Scenario, s: ScenarioSettings, mistakes: list[str]) -> None:
    if scenario is not Scenario.SINGLE_STREAM and s.target_qps is None:
        mistakes.append(
            f"scenario {scenario} needs a target_qps: --set scenarios.{scenario}.target_qps=1"
        )


def _check_eager_pipeline(benchmark: Benchmark, site: Site, mistakes: list[str]) -> None:
    engine = benchmark.engine
    cpu = engine.kind is EngineKind.VLLM and site.device is Device.CPU
    if cpu and engine.pipeline_parallel_size > 1 and engine.enforce_eager:
        # Its engine core dies of the first request.
        mistakes.append(
            "vLLM's pipeline parallelism on CPUs does not work with engine.enforce_eager: "
            "--set engine.enforce_eager=false "
            """--set 'engine.extra_args=["-cc.mode=2", "-cc.backend=eager"]'"""
        )


def _check_compliance(benchmark: Benchmark, mode: Mode, mistakes: list[str]) -> None:
    if mode is Mode.COMPLIANCE and benchmark.compliance is None:
        mistakes.append(
            f"no compliance test applies to benchmark {benchmark.name}: it has no compliance:. "
            "Choose another --mode"
        )


def _not_official_because(
    benchmark: Benchmark, preset: Preset, sets: Sequence[str]
) -> tuple[str, ...]:
    because = []
    if not benchmark.official:
        because.append(f"{benchmark.name} is not an MLPerf benchmark as shipped here")
    elif not benchmark.dataset.sha256:
        because.append("the data set's official hash is not known here")
    if benchmark.engine.kind is EngineKind.REPLAY:
        because.append("the replay engine answers, not a model")
    if given := forbidden(benchmark.engine.extra_args):
        because.append(f"MLPerf's rules forbid {', '.join(given)}")
    if preset is not Preset.OFFICIAL:
        because.append(f"preset {preset} lowers what mlperf.conf asks for")
    if changed := [s for s in sets if not _free_to_choose(s)]:
        because.append(f"changed on the command line: {', '.join(changed)}")
    return tuple(because)


def _free_to_choose(change: str) -> bool:
    """Whether a submitter may set it: where a run is, how its engines are set up, the load."""
    key = change.partition("=")[0]
    sizes_the_run = key.endswith(".target_qps") or key == "scenarios.singlestream.target_latency_ms"
    return key.startswith(("site.", "engine.")) or sizes_the_run
