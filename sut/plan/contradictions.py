"""What contradicts itself in a benchmark, or in a benchmark and what it runs with. Pure."""

from __future__ import annotations

from sut.errors import Errors
from sut.plan import engine_args, mlperf_conf
from sut.plan.benchmark import (
    Benchmark,
    Compliance,
    DatasetKind,
    EngineKind,
    ReplayAnswers,
    Scenario,
    ScenarioSettings,
)
from sut.plan.plan import Mode
from sut.plan.site import Device, Site

# vLLM's options that keep it from splitting prompts, of 0.32 and 0.33.
WHOLE = ("--no-enable-chunked-prefill", "--disable-chunked-prefill")
EVERYWHERE = ("", "*", "0.0.0.0", "::", "[::]")  # a socket there is open on all interfaces


def check(
    benchmark: Benchmark,
    site: Site,
    scenario: Scenario,
    mode: Mode,
    settings: ScenarioSettings,
    num_nodes: int,
    errors: Errors,
) -> None:
    """Add to ``errors`` each contradiction. ``settings`` are those of the scenario, ``num_nodes``
    the run's."""
    _check_paths(benchmark, errors)
    _check_prompt(benchmark, errors)
    _check_lengths(benchmark, errors)
    _check_token_limits(benchmark, scenario, settings, errors)
    if scenario is not Scenario.SINGLE_STREAM and settings.target_qps is None:
        errors.add(
            f"scenario {scenario} has no target_qps",
            hint=f"--set scenarios.{scenario}.target_qps=1",
        )
    if settings.target_qps is not None and scenario is Scenario.SINGLE_STREAM:
        errors.add(
            f"scenarios.{scenario}.target_qps is {settings.target_qps}, but {scenario} always has "
            "one query at a time",
            hint=f"remove target_qps: --set scenarios.{scenario}.target_qps=null",
        )
    if mode is Mode.ALL and benchmark.accuracy_test is not None:
        errors.add(
            f"--mode {mode}: the accuracy test of benchmark {benchmark.name} has its own data and "
            "generation settings, so it is a run of its own",
            hint="run --mode performance, and then --mode accuracy",
        )
    _check_compliance(benchmark, mode, errors)
    if benchmark.model.embedded and benchmark.model.name in site.models:
        errors.add(
            f"site.models has a folder for {benchmark.model.name}, but model.embedded is true: the "
            "model is built from a package",
            hint="to use the folder: --set model.embedded=false",
        )
    if site.host in EVERYWHERE:
        errors.add(
            f"host of site {site.name} is '{site.host}', which is no address of one network",
            hint="--set site.host=127.0.0.1",
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
    generation = benchmark.generation
    seeded = generation.temperature > 0 and generation.seed is not None
    if on_cpu and seeded and not any(engine_args.has(engine.extra_args, each) for each in WHOLE):
        # "CPU Generator does not use offset": vLLM 0.32 and 0.33 step back a generator after each
        # part of a prompt but the last.
        errors.add(
            "vLLM on a CPU fails where it splits a prompt that is sampled with generation.seed",
            hint=f"""--set 'engine.extra_args=["{WHOLE[0]}"]' (vLLM 0.33: {WHOLE[1]}), """
            "or let equal prompts have different answers: --set generation.seed=null",
        )


def _check_compliance(benchmark: Benchmark, mode: Mode, errors: Errors) -> None:
    tests = benchmark.compliance or Compliance()
    hint = "choose --mode performance, accuracy or all"
    if mode is Mode.COMPLIANCE and not tests.on_performance_data:
        errors.add(f"--mode {mode}: benchmark {benchmark.name} has no compliance test", hint=hint)
    if mode is Mode.TEST07 and tests.test07 is None:
        errors.add(f"--mode {mode}: benchmark {benchmark.name} has no TEST07", hint=hint)
    if tests.eos_token_ids and tests.output_tokens:
        errors.add(
            "compliance has both eos_token_ids (TEST06) and output_tokens (TEST09), and a run has "
            "one of these tests",
            hint="--set compliance.output_tokens=null",
        )
    if benchmark.compliance is not None and not (tests.on_performance_data or tests.test07):
        errors.add(
            "compliance enables no test",
            hint="give eos_token_ids (TEST06), output_tokens (TEST09) or test07, or "
            "--set compliance=null",
        )


def _check_paths(benchmark: Benchmark, errors: Errors) -> None:
    model, dataset = benchmark.model, benchmark.dataset
    for key, given in (("model", model), ("dataset", dataset)):
        if given.path:
            errors.add(
                f"{key}.path is not used: a benchmark gets its paths from the site",
                hint=f"""--set 'site.{key}s."{given.name}"={given.path}'""",
            )


def _check_prompt(benchmark: Benchmark, errors: Errors) -> None:
    if benchmark.dataset.kind.is_text and "{input}" not in benchmark.dataset.prompt:
        errors.add(
            "dataset.prompt has no {input}, where the text of a sample goes, so all prompts would "
            "be the same",
            hint="""--set 'dataset.prompt="{input}"'""",
        )


def _check_token_limits(
    benchmark: Benchmark, scenario: Scenario, settings: ScenarioSettings, errors: Errors
) -> None:
    """LoadGen ignores the limits of a test that does not count tokens."""
    counts = settings.use_token_latencies
    if counts is None:
        counts = (settings.loadgen_name or benchmark.model.loadgen_name) in mlperf_conf.MODELS
    for name in ("ttft_latency_ms", "tpot_latency_ms"):
        if getattr(settings, name) is not None and not counts:
            errors.add(
                f"scenarios.{scenario}.{name} has no effect without use_token_latencies",
                hint=f"--set scenarios.{scenario}.use_token_latencies=true, and for Server "
                f"--set scenarios.{scenario}.target_latency_ms=0",
            )
            return


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
