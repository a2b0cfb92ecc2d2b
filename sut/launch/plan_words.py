"""A plan in words: each function is one row of a dry run's page."""

from __future__ import annotations

from sut.plan import mlperf_conf
from sut.plan.benchmark import AUTO, EngineKind, Scenario
from sut.plan.plan import Mode, Plan, uses_model
from sut.plan.site import Device
from sut.units import exact, number, quantity

_FROM_CONF = "as in mlperf.conf"  # a setting that the plan leaves to LoadGen


def model(plan: Plan) -> str:
    if not uses_model(plan.engine, plan.dataset):
        return "none"
    if plan.model.embedded:
        return f"{plan.model.name}, built on first use"
    return f"{plan.model.name}, {plan.model.path}"


def data(plan: Plan) -> str:
    path = f", {plan.dataset.path}" if plan.dataset.path else ""
    return f"{plan.dataset.name}: {quantity(plan.dataset.num_samples, 'samples')}{path}"


def engine(plan: Plan) -> str:
    asked = plan.engine
    what = "the replay engine" if asked.kind is EngineKind.REPLAY else f"vLLM, {asked.dtype}"
    sizes = f"at most {number(asked.max_num_seqs)} sequences of {number(asked.max_model_len)}"
    extra = f"; {' '.join(asked.extra_args)}" if asked.extra_args else ""
    text = f"{what}, {sizes} tokens, {number(asked.max_num_batched_tokens)} tokens a step{extra}"
    if plan.keep_engine_min:
        text += f"; stays for {quantity(plan.keep_engine_min, 'minutes')} after the run"
    return text


def nodes(plan: Plan) -> str:
    replicas = quantity(len(plan.replicas), "replicas")
    size = plan.engine.tensor_parallel_size * plan.engine.pipeline_parallel_size
    if plan.device is Device.CUDA:
        replicas += f" of {quantity(size, 'GPUs')}"
    if plan.slurm is None:
        return f"this machine, {replicas}"
    named = plan.nodes_text()
    number_of = quantity(len(plan.nodes), "nodes")
    return f"{number_of}{named and f' ({named})'}, {replicas}"


def load(plan: Plan) -> str:
    settings = plan.loadgen_settings
    if plan.scenario is Scenario.SINGLE_STREAM:
        expected = settings.target_latency_ms
        each = f", {quantity(expected, 'ms')} expected for each" if expected else ""
        return f"one query at a time{each}"
    if plan.sweep:
        loads = f"{', '.join(map(exact, plan.sweep))} queries/s, one after the other"
        return f"{loads}; {quantity(plan.repeat, 'tests')} at each" if plan.repeat > 1 else loads
    if plan.tune:
        return "the highest at which the run is VALID; the run searches for it"
    if settings.target_qps == AUTO and _is_offline(plan):
        return f"{AUTO}: what the engines complete with a full batch, measured in the warm-up"
    if settings.target_qps == AUTO:
        return f"{AUTO}: chosen by a simulation of the run with step times from the warm-up"
    qps = float(settings.target_qps) if settings.target_qps else None
    return f"{exact(qps)} {'samples/s' if _is_offline(plan) else 'queries/s'}"


def limits(plan: Plan) -> str:
    if plan.scenario in (Scenario.OFFLINE, Scenario.SINGLE_STREAM):
        return "none"
    settings = mlperf_conf.effective(plan)
    known = {"TTFT p99": settings.ttft_latency_ms, "TPOT p99": settings.tpot_latency_ms}
    text = ", ".join(
        f"{name} {quantity(value, 'ms') if value else _FROM_CONF}" for name, value in known.items()
    )
    return text + "; a phase that can no longer meet them is ended" * plan.ends_when_hopeless


def size(plan: Plan) -> str:
    settings = mlperf_conf.effective(plan)
    if plan.mode is Mode.TEST07:
        return f"{quantity(plan.dataset.num_samples, 'samples')}, each once"
    if plan.mode is Mode.ACCURACY:
        count = settings.accuracy_sample_count or plan.dataset.num_samples
        return f"{quantity(count, 'samples')}, each once"
    unit = "samples" if _is_offline(plan) else "queries"
    least = f"the number of {unit} {_FROM_CONF}"
    if settings.min_query_count is not None:
        least = quantity(settings.min_query_count, unit)
    shortest = duration((settings.min_duration_ms or 0) / 1e3)
    most = [
        *([quantity(settings.max_query_count, unit)] if settings.max_query_count else []),
        *([duration(settings.max_duration_ms / 1e3)] if settings.max_duration_ms else []),
    ]
    text = f"at least {shortest} and {least}"
    return text + (f"; ended at {' or '.join(most)}, even if that is sooner" if most else "")


def _is_offline(plan: Plan) -> bool:
    return plan.scenario is Scenario.OFFLINE


def duration(seconds: float) -> str:
    if seconds < 120:
        return quantity(round(seconds, 1 if seconds < 10 else None), "s")
    if seconds < 7200:
        return quantity(round(seconds / 60), "min")
    return quantity(round(seconds / 3600, 1), "h")
