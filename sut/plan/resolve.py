"""From a benchmark and a site to a plan. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sut.errors import Errors
from sut.plan import engine_args, fit
from sut.plan.benchmark import (
    AUTO,
    Benchmark,
    DatasetKind,
    EngineKind,
    Preset,
    ReplayAnswers,
    Scenario,
    ScenarioSettings,
)
from sut.plan.document import nearest
from sut.plan.placement import Placement, place
from sut.plan.plan import Mode, Plan, Slurm, phases, uses_model
from sut.plan.site import Device, Site, SiteNode

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
    sets: Sequence[str] = (),
) -> Plan:
    """The plan of one run.

    ``nodes`` selects nodes of the site: a number, a hostlist, ``all``; empty for one.
    ``model_size`` is None if the model cannot be read on this machine; its size is then not
    checked. ``sets`` are the changes already applied to the two inputs. Raises InputError that
    lists every error.
    """
    errors = Errors()
    _check_paths(benchmark, errors)
    settings = _settings(benchmark, scenario, preset, errors)
    loadgen_name = settings.loadgen_name or benchmark.model.loadgen_name
    model_path = dataset_path = ""
    if not benchmark.model.embedded and uses_model(benchmark.engine, benchmark.dataset):
        model_path = _path("model", benchmark, site.models, "models", site, errors)
    if benchmark.dataset.kind is DatasetKind.CNN_EVAL:
        dataset_path = _path("data set", benchmark, site.datasets, "datasets", site, errors)
    checked = model_size if benchmark.engine.kind is EngineKind.VLLM else None

    def fits(node: SiteNode) -> bool:
        return checked is None or fit.fits(checked, benchmark.engine, site, node)

    placed = place(benchmark.engine, site, nodes, usable_cpus, errors, fits)
    settings = _with_site_load(
        settings, benchmark, site, scenario, preset, len(placed.replicas), sets
    )
    _check_lengths(benchmark, errors)
    _check_combination(benchmark, site, scenario, mode, settings, len(placed.nodes), errors)
    if benchmark.engine.kind is EngineKind.VLLM:
        engine_args.check(benchmark.engine.extra_args, errors)
    if checked is not None:
        fit.check_model(checked, benchmark.engine, site, placed.site_nodes, errors)
    num_samples = benchmark.dataset.num_samples
    tests = phases(mode, benchmark.compliance)
    run_s = sum(fit.phase_s(scenario, test, settings, num_samples) for test in tests)
    slurm = _slurm(site, placed, run_s, settings, errors)
    errors.raise_all()
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
    )


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
        return ScenarioSettings(target_qps=1.0)
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


def _check_paths(benchmark: Benchmark, errors: Errors) -> None:
    model, dataset = benchmark.model, benchmark.dataset
    for key, given in (("model", model), ("dataset", dataset)):
        if given.path:
            errors.add(
                f"{key}.path is not used: a benchmark gets its paths from the site",
                hint=f"""--set 'site.{key}s."{given.name}"={given.path}'""",
            )


def _path(
    what: str, benchmark: Benchmark, paths: dict[str, str], key: str, site: Site, errors: Errors
) -> str:
    name = benchmark.model.name if key == "models" else benchmark.dataset.name
    if name not in paths:
        download = f"; to download it: {GET_INPUTS}" if benchmark.dataset.sha256 else ""
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
        time_min=fit.time_min(site, run_s, errors, measures_load=settings.target_qps == AUTO),
        signal_delay_s=asked.signal_delay_s,
        max_requeues=asked.max_requeues,
        sbatch=asked.sbatch,
    )


def _check_lengths(benchmark: Benchmark, errors: Errors) -> None:
    dataset, generation, engine = benchmark.dataset, benchmark.generation, benchmark.engine
    if generation.min_tokens > generation.max_tokens:
        errors.add(
            f"generation.min_tokens {generation.min_tokens} exceeds generation.max_tokens "
            f"{generation.max_tokens}"
        )
    if dataset.kind is DatasetKind.SYNTHETIC and not (
        0 < dataset.min_prompt_tokens <= dataset.max_prompt_tokens
    ):
        errors.add(
            "synthetic prompts need 0 < min_prompt_tokens <= max_prompt_tokens: dataset has "
            f"{dataset.min_prompt_tokens} and {dataset.max_prompt_tokens}"
        )
    references = engine.replay.answers is ReplayAnswers.REFERENCES
    if engine.kind is EngineKind.REPLAY and references and dataset.kind is DatasetKind.SYNTHETIC:
        errors.add(
            "engine.replay.answers is references, but a synthetic data set has no references",
            hint="--set engine.replay.answers=echo",
        )
    longest = dataset.max_prompt_tokens + generation.max_tokens
    if longest > engine.max_model_len:
        errors.add(
            f"engine.max_model_len {engine.max_model_len} is less than {longest}: prompts of up to "
            f"{dataset.max_prompt_tokens} tokens plus answers of up to {generation.max_tokens}",
            hint=f"--set engine.max_model_len={longest}",
        )


def _check_combination(
    benchmark: Benchmark,
    site: Site,
    scenario: Scenario,
    mode: Mode,
    settings: ScenarioSettings,
    num_nodes: int,
    errors: Errors,
) -> None:
    if scenario is not Scenario.SINGLE_STREAM and settings.target_qps is None:
        errors.add(
            f"scenario {scenario} has no target_qps",
            hint=f"--set scenarios.{scenario}.target_qps=1",
        )
    if settings.target_qps == AUTO and scenario.loadgen != "Server":
        errors.add(
            f"scenarios.{scenario}.target_qps is {AUTO}, which only server and interactive support",
            hint=_SIZED_BY[scenario.loadgen],
        )
    if mode is Mode.COMPLIANCE and benchmark.compliance is None:
        errors.add(
            f"--mode {mode}: benchmark {benchmark.name} has no compliance test",
            hint="choose --mode performance, accuracy or all",
        )
    if num_nodes > 1 and not site.interface:
        errors.add(
            f"site {site.name} has no interface, and a run on several nodes needs one",
            hint="--set site.interface=eth0 (to list a node's interfaces: ip -brief address)",
        )
    engine = benchmark.engine
    on_cpu = engine.kind is EngineKind.VLLM and site.device is Device.CPU
    if on_cpu and engine.pipeline_parallel_size > 1 and engine.enforce_eager:
        # vLLM's engine core dies on the first request.
        errors.add(
            "vLLM's pipeline parallelism on CPUs does not work with engine.enforce_eager",
            hint="--set engine.enforce_eager=false "
            """--set 'engine.extra_args=["-cc.mode=2", "-cc.backend=eager"]'""",
        )


_SIZED_BY = {
    "Offline": "target_qps only sizes an Offline run; set it to the expected rate in samples/s: "
    "--set scenarios.offline.target_qps=10",
    "SingleStream": "leave it out; target_latency_ms sizes a SingleStream run: "
    "--set scenarios.singlestream.target_qps=null",
}


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
    if given := engine_args.forbidden(benchmark.engine.extra_args):
        because.append(f"MLPerf's rules forbid {', '.join(given)}")
    if preset is not Preset.OFFICIAL:
        because.append(f"preset {preset} lowers what mlperf.conf asks for")
    if changed := [s for s in sets if not _free_to_choose(s)]:
        because.append(f"changed on the command line: {', '.join(changed)}")
    return tuple(because)


def _free_to_choose(change: str) -> bool:
    """Whether MLPerf lets a submitter set it: the site, the engines, the load."""
    key = change.partition("=")[0]
    sizes_the_run = key.endswith(".target_qps") or key == "scenarios.singlestream.target_latency_ms"
    return key.startswith(("site.", "engine.")) or sizes_the_run
