"""Advice on what to try next follows from a run's measurements and names them."""

from __future__ import annotations

from array import array
from typing import Any

import msgspec
import pytest
from loadgen_logs import smallest_valid, ten_queries
from records import METERS, PLAN, REPLICAS, completed, failed, performance

from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode
from sut.report import advice
from sut.report.evidence import Evidence
from sut.results.load import QpsEstimate
from sut.results.losses import ReplicaLoss
from sut.results.phase_record import PhaseRecord
from sut.results.progress import Line, ReplicaProgress
from sut.results.record import Failure, Record
from sut.results.sample_log import SampleLog


def samples(count: int, wait_ms: float = 0.0, growth_ms: float = 0.0) -> SampleLog:
    """One sample every 10 ms; each waits ``growth_ms`` longer than the one before."""
    issued = [10.0 * n for n in range(count)]
    admitted = [issued[n] + wait_ms + growth_ms * n for n in range(count)]
    return SampleLog(
        sample_index=array("q", range(count)),
        replica=array("q", [0] * count),
        prompt_tokens=array("q", [10] * count),
        output_tokens=array("q", [8] * count),
        issued_ms=array("d", issued),
        admitted_ms=array("d", admitted),
        first_token_ms=array("d", [a + 1 for a in admitted]),
        completed_ms=array("d", [a + 8 for a in admitted]),
    )


def running(count: int) -> Line:
    replica = ReplicaProgress(
        index=0, in_flight=count, running=count, waiting=0, kv_cache_usage=0.2, output_tokens=1
    )
    return Line(t_s=1.0, step="performance", phase="performance", replicas=[replica])


def of(record: Record, log: SampleLog | None = None, lines: list[Line] | None = None) -> str:
    evidence = {"performance": Evidence(samples=log, lines=lines or [])}
    return "\n".join(advice.of(record, evidence, "python -m sut.submit --again RUN"))


def run(phase: PhaseRecord, **plan: Any) -> Record:
    settings: dict[str, Any] = {"preset": Preset.OFFICIAL, **plan}
    return completed(phase, plan=msgspec.structs.replace(PLAN, **settings))


def with_checks(phase: PhaseRecord, **measured: float) -> PhaseRecord:
    """The phase with p99s that are these shares of their limits."""
    checks = []
    for check in phase.verdict.checks:
        if check.code in measured:
            assert check.limit is not None
            value = measured[check.code] * check.limit
            check = msgspec.structs.replace(check, measured=value, met=value <= check.limit)
        checks.append(check)
    reasons = tuple(check for check in checks if not check.met)
    verdict = msgspec.structs.replace(
        phase.verdict,
        checks=tuple(checks),
        reasons=reasons,
        verdict="INVALID" if reasons else "VALID",
    )
    return msgspec.structs.replace(phase, verdict=verdict)


def with_kv(phase: PhaseRecord, usage: float) -> PhaseRecord:
    replicas = tuple(msgspec.structs.replace(r, kv_cache_usage_max=usage) for r in REPLICAS)
    return msgspec.structs.replace(phase, replicas=replicas)


@pytest.fixture(scope="module")
def valid() -> PhaseRecord:
    return performance(smallest_valid())


def test_a_valid_official_run_needs_no_advice(
    valid: PhaseRecord,
) -> None:
    assert of(run(with_checks(valid, ttft_p99=0.9, tpot_p99=0.9)), samples(500)) == ""


def test_a_quick_run_gets_the_smoke_preset() -> None:
    text = of(completed(performance(ten_queries())), samples(10))
    assert "--preset smoke" in text and "TTFT" not in text


def test_a_smoke_run_gets_official_and_all_tests(valid: PhaseRecord) -> None:
    near = with_checks(valid, ttft_p99=0.9, tpot_p99=0.9)
    text = of(run(near, preset=Preset.SMOKE, mode=Mode.PERFORMANCE), samples(500))
    assert "--preset official" in text and "--mode all" in text


def test_a_failed_run_names_the_log_to_read() -> None:
    text = of(failed(Failure(code="engine_died", message="x", replica=1)))
    assert "logs/replica-1.log" in text and "--again" in text


def test_an_interrupted_run_gets_a_lower_load() -> None:
    cut = failed(Failure(code="truncated", message="the wall limit is near"))
    text = of(cut, samples(500, growth_ms=10.0))
    assert "--again" in text and "logs" not in text
    assert "target_qps=45" in text
    assert "target_qps" not in of(cut, samples(500))


def test_a_growing_queue_means_less_load(valid: PhaseRecord) -> None:
    text = of(run(with_checks(valid, ttft_p99=3.0)), samples(500, growth_ms=10.0))
    assert "waited 620 ms" in text and "4,370 ms in the last" in text
    # A sample every 20 ms gets done, 50 a second.
    assert "--set scenarios.server.target_qps=45" in text


def test_the_verdicts_estimate_takes_precedence(valid: PhaseRecord) -> None:
    over = with_checks(valid, ttft_p99=3.0)
    known = QpsEstimate(qps=33.0, text="About 33 queries/s.")
    verdict = msgspec.structs.replace(over.verdict, qps_estimate=known)
    estimated = msgspec.structs.replace(over, verdict=verdict)
    assert "target_qps=45" not in of(run(estimated), samples(500, growth_ms=10.0))


def test_latencies_far_below_limits_mean_more_load(valid: PhaseRecord) -> None:
    far = with_checks(valid, ttft_p99=0.2, tpot_p99=0.3)
    offered = msgspec.structs.replace(far, loadgen=far.loadgen | {"effective_target_qps": 2.0})
    text = of(run(offered), samples(500))
    assert "20% of its limit" in text and "target_qps=2.4`" in text


def test_tpot_over_its_limit_means_smaller_steps(valid: PhaseRecord) -> None:
    over = with_kv(with_checks(valid, ttft_p99=0.2, tpot_p99=1.2), 0.1)
    text = of(run(over), samples(500, wait_ms=5.0), [running(16)])
    assert "a lower `engine.max_num_batched_tokens` (now 4096)" in text
    assert "--set engine.max_num_seqs" not in text  # more of them would make it worse


def test_ttft_over_and_tpot_low_means_bigger_steps(valid: PhaseRecord) -> None:
    text = of(run(with_checks(valid, ttft_p99=1.2, tpot_p99=0.2)), samples(500))
    assert "higher `engine.max_num_batched_tokens`" in text


def test_distinguishes_a_full_kv_cache_from_full_places(valid: PhaseRecord) -> None:
    near = with_checks(valid, ttft_p99=0.9, tpot_p99=0.4)
    full = of(run(with_kv(near, 0.99)), samples(500), [running(16)])
    assert "A KV cache was full (99.0%)" in full
    places = of(run(with_kv(near, 0.2)), samples(500, wait_ms=5.0), [running(16)])
    assert "--set engine.max_num_seqs=32" in places
    free = of(run(with_kv(near, 0.2)), samples(500, wait_ms=5.0), [running(9)])
    assert "max_num_seqs" not in free


def test_offline_gets_no_advice_on_load(valid: PhaseRecord) -> None:
    text = of(run(valid, scenario=Scenario.OFFLINE), samples(500, growth_ms=10.0))
    assert "target_qps" not in text


def test_names_a_slow_replica_and_a_slowed_gpu(valid: PhaseRecord) -> None:
    busy = tuple(
        msgspec.structs.replace(r, samples=500, output_tokens=tokens, busy_s=10.0)
        for r, tokens in zip(REPLICAS, (1000, 700), strict=True)
    )
    phase = msgspec.structs.replace(valid, replicas=busy, telemetry=(METERS,))
    text = of(run(with_checks(phase, ttft_p99=0.9, tpot_p99=0.9)))
    assert "Replica 1 (jw3) generated 70 tokens/s while busy, replica 0 (jw2) 100" in text
    assert "jw2's GPU 0 was slowed by power in 25.0%" in text and "heat in" not in text


def test_a_lost_replica_is_not_called_slow(valid: PhaseRecord) -> None:
    busy = tuple(
        msgspec.structs.replace(r, samples=500, output_tokens=tokens, busy_s=10.0)
        for r, tokens in zip(REPLICAS, (1000, 700), strict=True)
    )
    loss = ReplicaLoss(
        replica=1,
        nodes=("jw3",),
        code="engine_died",
        message="killed",
        at_s=2.0,
        samples_restarted=3,
        tokens_lost=40,
    )
    phase = msgspec.structs.replace(valid, replicas=busy, losses=(loss,))
    assert "generated" not in of(run(with_checks(phase, ttft_p99=0.9, tpot_p99=0.9)))


def test_a_few_samples_give_no_advice(valid: PhaseRecord) -> None:
    far = with_checks(valid, ttft_p99=0.2, tpot_p99=0.3)
    assert "target_qps" not in of(run(far), samples(20))
