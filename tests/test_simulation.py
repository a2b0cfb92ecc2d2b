"""The simulation against a real run of the same plan, and its interface."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from replay import MAX_TOKENS, served

from sut import _core
from sut.run.credit import credit

NUM_SAMPLES = 40
USER_CONF = """\
x.Server.target_qps = 12
x.Server.min_duration = 2500
x.Server.min_query_count = 30
x.Server.target_latency = 0
x.Server.use_token_latencies = 1
"""
STEP_MS = 20.0  # half of the places stay free: with the delays of a busy machine no queue grows


def schedule() -> _core.Schedule:
    return _core.schedule(
        model="x", scenario="Server", user_conf=USER_CONF, num_samples=NUM_SAMPLES
    )


def simulate(**changes: Any) -> _core.Simulated:
    given: dict[str, Any] = {
        "schedule": schedule(),
        "prompt_tokens": [3] * NUM_SAMPLES,
        "output_tokens": [MAX_TOKENS] * NUM_SAMPLES,
        "service": _core.ServiceModel(
            base_us=1000 * STEP_MS, per_sequence_us=1000, per_prefill_token_us=1000
        ),
        "num_replicas": 1,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "max_model_len": 1024,
    }
    return _core.simulate(**(given | changes))


def measure(log_dir: Path) -> dict[str, memoryview[int]]:
    options = ["--max-num-seqs", "4", "--max-num-batched-tokens", "64"]
    options += ["--step-base-us", str(1000 * STEP_MS), "--step-per-sequence-us", "1000"]
    with served(NUM_SAMPLES, 1, *options, "--prefill-tokens-per-s", "1000") as dispatcher:
        dispatcher.set_credit(0, credit(4))
        dispatcher.reset_stats()
        test = _core.LoadGenTest(
            dispatcher,
            model="x",
            scenario="Server",
            mode="performance",
            user_conf=USER_CONF,
            audit_conf="",
            log_dir=str(log_dir),
            sut_name="replay",
            qsl_name="numbers",
        )
        test.start()
        assert test.wait(60.0) and test.finished
        return dispatcher.samples()


def median_ms(samples: dict[str, memoryview[int]], end: str, start: str) -> float:
    pairs = zip(samples[end], samples[start], strict=True)
    return statistics.median(later - earlier for later, earlier in pairs) / 1e6


def test_a_real_run_is_as_simulated(tmp_path: Path) -> None:
    real = measure(tmp_path)
    plan = schedule()
    issued = sorted(zip(real["issued_ns"], real["sample_index"], strict=True))
    assert [sample for _, sample in issued] == list(plan.sample_index)
    first_ns = issued[0][0]
    late_ms = [
        (at - first_ns - planned) / 1e6
        for (at, _), planned in zip(issued, plan.arrival_ns, strict=True)
    ]
    assert statistics.median(late_ms) > -STEP_MS  # the first one may be the latest

    simulated = simulate()
    assert sorted(simulated.samples()["sample_index"]) == sorted(real["sample_index"])
    # A busy machine adds delays to a step, and takes nothing off it.
    for end, start in (
        ("first_token_ns", "issued_ns"),
        ("completed_ns", "first_token_ns"),
        ("completed_ns", "issued_ns"),
    ):
        expected = median_ms(simulated.samples(), end, start)
        assert 0.6 * expected < median_ms(real, end, start) < 4 * expected, (end, start)
    took_s = (max(real["completed_ns"]) - first_ns) / 1e9
    assert 0.95 < took_s / (simulated.end_ns / 1e9) < 2


def test_replicas_have_a_runs_credit() -> None:
    def admitted(**changes: Any) -> list[int]:
        burst = _core.Schedule(arrival_ns=[0] * 30, sample_index=[0] * 30)
        samples = simulate(
            schedule=burst, max_num_seqs=9, max_num_batched_tokens=9, **changes
        ).samples()
        return list(samples["admitted_ns"])

    assert admitted() == admitted(credit=credit(9)) != admitted(credit=credit(9) + 1)


def test_unlike_replicas_get_samples_by_their_speed() -> None:
    burst = _core.Schedule(arrival_ns=[0] * 2000, sample_index=[0] * 2000)
    samples = simulate(schedule=burst, num_replicas=2, step_factors=[1, 4]).samples()
    completed = [list(samples["replica"]).count(replica) for replica in (0, 1)]
    assert 3.8 < completed[0] / completed[1] < 4.2


def test_columns_are_of_equal_length() -> None:
    simulated = simulate(log_steps=True)
    assert {len(column) for column in simulated.samples().values()} == {len(schedule())}
    (num_steps,) = {len(column) for column in simulated.steps().values()}
    service = _core.ServiceModel(base_us=9, per_sequence_us=2, per_prefill_token_us=1, pad_to=4)
    assert service.step_ns(num_decoding=5, num_prefill_tokens=7, context_tokens=99) == 32_000
    assert num_steps > 0 and len(simulate().steps()["end_ns"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_replicas": 0}, "num_replicas"),
        ({"credit": 0}, "credit"),
        ({"max_num_batched_tokens": 3}, "max_num_batched_tokens"),
        ({"max_model_len": MAX_TOKENS}, "max_model_len"),
        ({"prompt_tokens": [3]}, "same length"),
        ({"schedule": _core.Schedule(arrival_ns=[0], sample_index=[99])}, "without a number"),
        ({"schedule": _core.Schedule(arrival_ns=[1, 0], sample_index=[0, 0])}, "ascend"),
        ({"schedule": _core.Schedule(arrival_ns=[0], sample_index=[])}, "same length"),
        ({"step_factors": [1.0, 2.0]}, "one factor for each replica"),
        ({"step_factors": [-1.0]}, "finite and above 0"),
    ],
)
def test_refuses_invalid_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(**change)


@pytest.mark.parametrize(
    "change", [{"base_us": -1.0}, {"noise": float("nan")}, {"hiccup_probability": 2.0}]
)
def test_refuses_an_invalid_service_model(change: dict[str, Any]) -> None:
    given = {"base_us": 1.0, "per_sequence_us": 1.0, "per_prefill_token_us": 1.0}
    with pytest.raises(ValueError, match=r"must be at"):
        _core.ServiceModel(**(given | change))


def test_refuses_a_scenario_without_a_schedule() -> None:
    with pytest.raises(ValueError, match="only Server and Offline"):
        _core.schedule(model="x", scenario="SingleStream", user_conf="", num_samples=1)
