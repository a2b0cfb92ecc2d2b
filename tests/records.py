"""Records to test with, made of LoadGen's real logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from sut.machine import environment
from sut.plan.benchmark import (
    Accuracy,
    Dataset,
    DatasetKind,
    Engine,
    EngineKind,
    Gate,
    Generation,
    Model,
    Preset,
    Scenario,
    ScenarioSettings,
)
from sut.plan.plan import Mode, Node, Part, Plan, Replica
from sut.plan.site import CpuDevice, Device, Timeouts
from sut.report import render as reports
from sut.results import engine_rules, integrity, mllog
from sut.results.engine_report import EngineReport
from sut.results.judge import judge_accuracy, judge_performance, overall
from sut.results.phase_record import DispatcherStats, PhaseRecord
from sut.results.record import Failure, Hashes, Record, Step
from sut.results.telemetry import GpuTelemetry, NodeTelemetry
from sut.results.work import NodeWork, Quantiles, ReplicaWork, Shortcuts

PLAN = Plan(
    benchmark="smollm2-135m-news",
    site="local",
    scenario=Scenario.SERVER,
    mode=Mode.ALL,
    preset=Preset.QUICK,
    official=False,
    not_official_because=("the preset is quick", "the model is not Llama-3.1-8B"),
    round="v6.1",
    model=Model(name="smollm2-135m-instruct", loadgen_name="llama3_1-8b", embedded=True),
    dataset=Dataset(name="news", kind=DatasetKind.NEWS, num_samples=300),
    generation=Generation(max_tokens=128),
    engine=Engine(
        kind=EngineKind.VLLM, max_model_len=2668, max_num_seqs=16, max_num_batched_tokens=4096
    ),
    device=Device.CPU,
    cpu=CpuDevice(),
    nodes=(Node(name="localhost"),),
    replicas=tuple(Replica(index=i, parts=(Part(node=0),)) for i in range(2)),
    host="127.0.0.1",
    loadgen_name="llama3_1-8b",
    loadgen_settings=ScenarioSettings(target_qps=50, max_query_count=10),
    accuracy=Accuracy(
        reference={"rouge1": 30.0, "gen_len": 120_000.0},
        gates={"rouge1": Gate(low=29.7), "gen_len": Gate(low=108_000, high=132_000)},
    ),
    timeouts=Timeouts(),
)
# The plan of loadgen_logs.smallest_valid().
PLAN_OF_SMALLEST_VALID = msgspec.structs.replace(
    PLAN,
    dataset=msgspec.structs.replace(PLAN.dataset, num_samples=100),
    loadgen_settings=ScenarioSettings(target_qps=1000, min_duration_ms=300, min_query_count=480),
)
QUANTILES = Quantiles(p50=48.1, p90=49.2, p99=50.3, p99_9=50.4, max=50.5)
REPLICAS = (
    ReplicaWork(
        index=0,
        node="jw2",
        samples=6,
        prompt_tokens=600,
        output_tokens=48,
        busy_s=0.4,
        share=0.6,
        shortcuts=Shortcuts(num_prefills=6, num_stats=9),
    ),
    ReplicaWork(
        index=1,
        node="jw3",
        samples=4,
        prompt_tokens=400,
        output_tokens=32,
        busy_s=0.3,
        share=0.4,
        shortcuts=Shortcuts(num_prefills=4, num_stats=9),
    ),
)

NODES = tuple(
    NodeWork(
        node=work.node,
        replicas=1,
        samples=work.samples,
        prompt_tokens=work.prompt_tokens,
        output_tokens=work.output_tokens,
        tokens_per_s=work.output_tokens / 0.5,
        ttft_ms=QUANTILES,
        tpot_ms=QUANTILES,
        kv_cache_usage_max=0.12,
    )
    for work in REPLICAS
)
METERS = NodeTelemetry(
    node="jw2",
    num_readings=60,
    cpu_energy_j=600.0,
    cpu_clock_mhz_mean=2400.0,
    cpu_clock_mhz_min=2100.0,
    gpus=(
        GpuTelemetry(
            index=0,
            energy_j=1000.0,
            power_w_mean=150.0,
            power_w_max=165.0,
            sm_clock_mhz_mean=1400.0,
            sm_clock_mhz_min=1200,
            temperature_c_max=64,
            memory_used_mib_max=22 * 1024,
            slowed_by_power=0.25,
            slowed_by_heat=0.0,
        ),
    ),
)


def bare(record: Record) -> Record:
    """Without what writing it adds."""
    return msgspec.structs.replace(record, files={}, digest="")


def rewrite(path: Path, document: dict[str, Any]) -> None:
    """Replace a record's file by one that is intact."""
    text = json.dumps({**document, "digest": integrity.BLANK}, indent=2)
    path.write_bytes(integrity.seal(text.encode()))


def engine(
    plan: Plan = PLAN, changed: dict[str, Any] | None = None, **settings: Any
) -> EngineReport:
    """What an engine of the plan reports, with these settings. ``changed`` are their values without
    ``engine.extra_args``."""
    return EngineReport(
        engine="vllm 0.32.0",
        settings={
            **engine_rules.planned(plan),
            "cache_config.enable_prefix_caching": False,
            "cache_config.kv_offloading_size": None,
            "speculative_config": None,
            "kv_transfer_config": None,
            **settings,
        },
        changed=changed or {},
    )


def performance(log_dir: Path, **changes: Any) -> PhaseRecord:
    log = mllog.read(log_dir)
    phase = PhaseRecord(
        name="performance",
        loadgen=log.values,
        loadgen_errors=tuple(error.message for error in log.errors),
        verdict=judge_performance(log, num_failed=0, replica_samples=(6, 4), official=False),
        replicas=REPLICAS,
        dispatcher=DispatcherStats(
            elapsed_s=0.6,
            issued=10,
            completed=10,
            failed=0,
            prompt_tokens=1000,
            output_tokens=80,
            ttft_ms=QUANTILES,
            tpot_ms=QUANTILES,
        ),
        nodes=NODES,
        duration_s=10.0,
    )
    return msgspec.structs.replace(phase, **changes)


def accuracy(rouge1: float) -> PhaseRecord:
    scores = {"rouge1": rouge1, "gen_len": 40_000.0}
    verdict = judge_accuracy(scores, PLAN.accuracy, num_scored=100, num_samples=300, official=False)
    return PhaseRecord(
        name="accuracy",
        loadgen={"effective_scenario": "Server", "effective_test_mode": "AccuracyOnly"},
        loadgen_errors=(),
        verdict=verdict,
        replicas=REPLICAS,
        accuracy=scores,
        num_scored=100,
    )


def completed(*phases: PhaseRecord, **changes: Any) -> Record:
    verdict = overall(phase.verdict for phase in phases)
    record = Record(
        run_id="20261124-021500-server",
        created_utc="2026-11-24T02:15:00Z",
        status="completed",
        exit_code=0 if verdict == "VALID" else 1,
        verdict=verdict,
        failure=None,
        plan_digest=PLAN.digest(),
        plan=PLAN,
        environment=environment.collect(),
        hashes=Hashes(model="a" * 64, data="b" * 64),
        timings=(
            Step(name="load", start_s=0.0, duration_s=12.3),
            Step(name="performance", start_s=12.3, duration_s=0.6),
        ),
        phases=phases,
    )
    return msgspec.structs.replace(record, **changes)


def failed(failure: Failure, *phases: PhaseRecord) -> Record:
    return completed(*phases, status="failed", exit_code=3, verdict=None, failure=failure)


def render(record: Record) -> str:
    """Its report in Markdown, without its samples."""
    return reports.render(record, "/runs/my run", {})
