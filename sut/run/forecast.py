"""What a run would give, simulated before a node is booked.

The performance test is simulated with LoadGen's own schedule (:mod:`sut.run.simulator`), once for
each number of replicas. The engines' step times come from an earlier run, or from a table of GPUs
(:mod:`sut.results.gpus`).
"""

from __future__ import annotations

import math
import random

import msgspec

from sut.errors import InputError, quoted
from sut.plan import duration, mlperf_conf
from sut.plan.benchmark import AUTO, Scenario
from sut.plan.plan import Mode, Plan
from sut.results import cost, peak, sample_log, tuning
from sut.results.gpus import Hardware
from sut.results.peak import Limits
from sut.results.record import Record
from sut.results.service import ServiceTimes
from sut.results.work import Quantiles
from sut.run import simulator
from sut.run.simulator import Simulator, by_index
from sut.rundir import RunDir
from sut.units import quantity
from sut.values import Struct

# Prompts of a data set that was not read: a lognormal distribution with this median and spread,
# close to that of CNN/DailyMail with Llama 3's tokens.
MEDIAN_PROMPT, PROMPT_SPREAD, SHORTEST_PROMPT = 760, 0.45, 60
SEED = 7  # of the prompts


class Basis(Struct, frozen=True, kw_only=True):
    """What a simulation starts from. Lengths are by index of the sample; ``source`` is where the
    step times are from, in words."""

    plan: Plan
    service: ServiceTimes
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    source: str


class Forecast(Struct, frozen=True, kw_only=True):
    """A simulated performance test. ``peak_qps`` is the highest VALID load, None where it was not
    searched for; ``limit`` is the limit that binds there, or that the given load exceeds.
    ``target_qps`` is the load that the figures are of: the one to ask for, or the given one; in
    Offline the rate by which LoadGen sizes the test. ``tests_s`` is the time of the plan's tests.
    """

    num_replicas: int
    max_num_seqs: int
    max_num_batched_tokens: int
    verdict: str  # VALID or INVALID
    peak_qps: float | None
    target_qps: float
    limit: str
    num_queries: int
    samples_per_s: float
    tokens_per_s: float
    ttft_ms: Quantiles
    tpot_ms: Quantiles
    tests_s: float
    cost_per_million_tokens: float | None


def of_run(run_dir: RunDir, record: Record) -> Basis:
    """From a run that measured its engines' steps. Raises InputError."""
    service = record.tuning.service if record.tuning else None
    if service is None and record.load is not None:
        service = record.load.service
    samples = sample_log.read(run_dir.samples("performance"))
    is_auto = record.load is not None and record.plan.scenario is not Scenario.OFFLINE
    if service is None and is_auto and samples is not None:
        _limits(record.plan)  # a test without limits is never simulated
        raise InputError(
            f"the run measured too few engine steps for a simulation ({run_dir})",
            hint="measure again, with nothing else on the machine: python -m sut.submit --again "
            f"{quoted(run_dir.root)}",
        )
    if service is None or samples is None:
        what = "its engines' steps" if service is None else "a performance test"
        raise InputError(
            f"the run did not measure {what} ({run_dir})",
            hint="use one of Server or Interactive whose load was measured: python -m sut.submit "
            f"--config {record.plan.benchmark} --scenario server --set target_qps=auto",
        )
    indices, num_samples = samples.sample_index, record.plan.dataset.num_samples
    return Basis(
        plan=record.plan,
        service=service,
        prompt_tokens=tuple(by_index(indices, samples.prompt_tokens, num_samples)),
        output_tokens=tuple(by_index(indices, samples.output_tokens, num_samples)),
        source=f"step times of run {run_dir.root.name}, fitted to {service.num_steps:,} steps",
    )


def for_plan(basis: Basis, plan: Plan) -> Basis:
    """The basis of another run of the same benchmark. Raises InputError."""
    if plan.benchmark != basis.plan.benchmark:
        raise InputError(
            f"the step times are of a run of {basis.plan.benchmark}, not of {plan.benchmark}",
            hint=f"use them for it: --config {basis.plan.benchmark}",
        )
    indices, num_samples = range(len(basis.prompt_tokens)), plan.dataset.num_samples
    return msgspec.structs.replace(
        basis,
        plan=plan,
        prompt_tokens=tuple(by_index(indices, basis.prompt_tokens, num_samples)),
        output_tokens=tuple(by_index(indices, basis.output_tokens, num_samples)),
    )


def of_gpu(gpu: Hardware, plan: Plan) -> Basis:
    """From the table. Prompts are a stand-in, and every answer has the longest length."""
    longest = plan.engine.max_model_len - plan.generation.max_tokens
    return Basis(
        plan=plan,
        service=gpu.times,
        prompt_tokens=tuple(stand_in_prompts(plan.dataset.num_samples, longest)),
        output_tokens=(plan.generation.max_tokens,) * plan.dataset.num_samples,
        source=gpu.source,
    )


def stand_in_prompts(num_samples: int, longest: int) -> list[int]:
    """The lengths of prompts of a data set that was not read."""
    chance = random.Random(SEED)
    lengths = (
        round(chance.lognormvariate(math.log(MEDIAN_PROMPT), PROMPT_SPREAD))
        for _ in range(num_samples)
    )
    return [min(max(length, SHORTEST_PROMPT), longest) for length in lengths]


def forecast(
    basis: Basis,
    num_replicas: int,
    target_qps: float | None = None,
    most_tokens: float = math.inf,
) -> Forecast:
    """The test on so many replicas, at ``target_qps`` or at the load to ask for, with
    ``most_tokens`` in all simulated answers. Raises InputError."""
    plan = _with_replicas(basis.plan, num_replicas)
    limits = _limits(plan)
    test = Simulator(plan, limits, basis.prompt_tokens, basis.output_tokens, most_tokens)
    found = None
    if plan.scenario is Scenario.OFFLINE:
        target_qps = target_qps or _rounded(_offline_rate(test, basis.service))
    elif target_qps is None:
        found = peak.find(lambda qps: test.attempt(qps, basis.service), float(num_replicas))
        if not found.target_qps:
            lowest = quantity(found.tried[0].target_qps, "queries/s")
            raise InputError(
                f"no load is VALID in simulation: {found.limit} is over its limit at {lowest} "
                "already",
                hint="it needs a faster engine, or fewer sequences at once (engine.max_num_seqs)",
            )
        target_qps = _rounded(tuning.CONFIRM * found.target_qps)
    return _at(basis, plan, test, limits, target_qps, found)


def _rounded(qps: float) -> float:
    return float(f"{qps:.4g}")


def _at(
    basis: Basis,
    plan: Plan,
    test: Simulator,
    limits: Limits | None,
    qps: float,
    found: peak.Peak | None,
) -> Forecast:
    schedule = test.schedule(qps)
    simulated = test.run(schedule, basis.service)
    tried = simulator.tried(qps, schedule, simulated)
    samples = simulated.samples()
    span_s, num_replicas = simulated.end_ns / 1e9, len(plan.replicas)
    ttft, tpot = simulator.latencies(samples)
    tokens_per_s = sum(samples["output_tokens"]) / span_s
    rate = len(schedule) / span_s
    is_valid = limits is None or tried.is_valid
    limit = found.limit if found else ("" if is_valid else tried.limit)
    num_nodes = num_replicas * len(basis.plan.nodes) / len(basis.plan.replicas)
    return Forecast(
        num_replicas=num_replicas,
        max_num_seqs=plan.engine.max_num_seqs,
        max_num_batched_tokens=plan.engine.max_num_batched_tokens,
        verdict="VALID" if is_valid else "INVALID",
        peak_qps=found.target_qps if found else None,
        target_qps=qps,
        limit=limit,
        num_queries=len(schedule),
        samples_per_s=rate,
        tokens_per_s=tokens_per_s,
        ttft_ms=ttft,
        tpot_ms=tpot,
        tests_s=_tests_s(plan, min(qps, rate), span_s),
        cost_per_million_tokens=cost.at_rate(plan, num_nodes, tokens_per_s),
    )


def _tests_s(plan: Plan, rate: float, performance_s: float) -> float:
    """The time of all tests: the simulated one's, and the others' at ``rate`` samples/s, which is
    what the engines complete where more is offered."""
    others = [test for test in plan.tests if test.mode is not Mode.PERFORMANCE]
    settings, num_samples = plan.settings_at(rate), plan.dataset.num_samples
    others_s = duration.of_tests(
        plan.scenario, others, settings, num_samples, compliance=plan.compliance
    )
    return performance_s * (len(plan.tests) - len(others)) + others_s


def _offline_rate(test: Simulator, service: ServiceTimes) -> float:
    """The samples per second of the smallest test."""
    schedule = test.schedule(1.0)
    return len(schedule) / (test.run(schedule, service).end_ns / 1e9)


def _with_replicas(plan: Plan, num_replicas: int) -> Plan:
    """The plan on so many replicas, with the load left to the run."""
    replicas = [msgspec.structs.replace(plan.replicas[0], index=i) for i in range(num_replicas)]
    settings = msgspec.structs.replace(plan.loadgen_settings, target_qps=AUTO)
    return msgspec.structs.replace(plan, replicas=tuple(replicas), loadgen_settings=settings)


def _limits(plan: Plan) -> Limits | None:
    """LoadGen's limits on tokens; None in Offline. Raises InputError for a test without."""
    if plan.scenario is Scenario.OFFLINE:
        return None
    found = mlperf_conf.effective(plan)
    if found.ttft_latency_ms is None or found.tpot_latency_ms is None:
        raise InputError(
            f"{plan.scenario} of {plan.benchmark} has no limits on tokens to search against",
            hint="simulate --scenario server, interactive or offline",
        )
    return Limits(ttft_ms=found.ttft_latency_ms, tpot_ms=found.tpot_latency_ms)
