"""What will come of a phase, told while it runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadgen_logs import smallest_valid, ten_queries

from sut.results import mllog
from sut.results.early_stopping import queries_needed
from sut.results.progress import Line, ReplicaProgress
from sut.watch.projection import Goal, goal_of, project

SERVER = Goal(
    scenario="Server",
    performance=True,
    num_samples=1000,
    min_samples=480,
    schedule_s=100.0,
    min_duration_s=60.0,
    percentile=0.99,
    ttft_limit_ms=2000.0,
    tpot_limit_ms=100.0,
    error=None,
)


def goal(**changes: Any) -> Goal:
    return msgspec.structs.replace(SERVER, **changes)


def line(completed: int = 500, **changes: Any) -> Line:
    """A run that keeps up with its load, well within its limits."""
    values: dict[str, Any] = {
        "t_s": 60.0,
        "step": "performance",
        "phase": "performance",
        "issued": completed + 5,
        "in_flight": 5,
        "completed": completed,
        "elapsed_s": completed / 10,
        "ttft_p99_ms": 300.0,
        "tpot_p99_ms": 40.0,
        "ttft_over": 0,
        "tpot_over": 0,
    }
    return Line(**{**values, **changes})


def test_a_run_within_its_limits_is_valid_so_far_and_ends_by_its_schedule() -> None:
    projection = project(SERVER, line())
    assert projection.words == "VALID so far" and projection.reasons == ()
    assert projection.left_s == pytest.approx(50.0)


def test_a_compliance_test_has_no_limits_to_be_held_to() -> None:
    values = dict(mllog.read(ten_queries()).values)
    performance = goal_of(values)
    compliance = goal_of(values | {"effective_accuracy_log_sampling_target": 100})
    assert performance is not None and performance.performance
    assert compliance is not None and not compliance.performance
    assert compliance.num_samples == performance.num_samples == 10
    assert project(compliance, line(5)).words == ""


def test_a_run_that_falls_behind_ends_by_its_rate() -> None:
    projection = project(SERVER, line(250, elapsed_s=50.0, queued=200))
    assert projection.left_s == pytest.approx(150.0)


def test_nothing_is_said_before_a_first_sample_is_done() -> None:
    projection = project(SERVER, line(0, ttft_p99_ms=None, tpot_p99_ms=None))
    assert projection.verdict is None and projection.words == "" and projection.left_s is None


def test_a_latency_over_its_limit_is_invalid_so_far_while_it_can_recover() -> None:
    over = line(100, ttft_p99_ms=2300.0, ttft_over=2)
    projection = project(SERVER, over)
    assert projection.words == "INVALID so far"
    assert projection.reasons == ("TTFT p99 is 2,300 ms; the limit is 2,000 ms.",)


def test_more_queries_over_a_limit_than_the_run_can_make_up_for_is_certain() -> None:
    projection = project(SERVER, line(100, tpot_p99_ms=140.0, tpot_over=30))
    assert projection.words == "will be INVALID"
    assert "30 of 100 queries over the TPOT limit" in projection.reasons[0]


@given(num_samples=st.integers(500, 20_000), over=st.integers(0, 400))
def test_it_is_certain_exactly_when_early_stopping_can_not_be_met(
    num_samples: int, over: int
) -> None:
    projection = project(goal(num_samples=num_samples), line(450, ttft_over=over))
    assert projection.certain == (queries_needed(over, 0.99) > num_samples)


def test_ten_queries_will_be_invalid_and_no_word_is_said_of_latency() -> None:
    log = mllog.read(ten_queries())
    values = {k: v for k, v in log.values.items() if not k.startswith(("result", "early"))}
    told = goal_of(values)
    assert told is not None and told.num_samples == 10
    projection = project(told, line(3, elapsed_s=0.1))
    assert projection.words == "will be INVALID"
    assert any("too few to be 99% sure of p99; 459 needed" in r for r in projection.reasons)
    assert any("at least 600 s needed" in r for r in projection.reasons)
    assert not any("TTFT" in r or "TPOT" in r for r in projection.reasons)


def test_the_goal_is_read_from_what_loadgen_logs_first() -> None:
    told = goal_of(mllog.read(smallest_valid()).values)
    assert told is not None and told.scenario == "Server" and told.performance
    assert (told.num_samples, told.min_samples) == (500, 480)  # whole passes of 100 samples
    assert (told.ttft_limit_ms, told.tpot_limit_ms) == (2000.0, 100.0)
    assert 0.3 < told.schedule_s < 1.0 and told.min_duration_s == 0.3


def test_a_beginning_that_is_not_all_there_tells_nothing() -> None:
    values = mllog.read(smallest_valid()).values
    assert goal_of({}) is None
    assert goal_of({k: v for k, v in values.items() if k != "generated_query_count"}) is None


def test_offline_is_told_when_it_will_be_too_short() -> None:
    offline = goal(scenario="Offline", ttft_limit_ms=None, tpot_limit_ms=None, min_duration_s=60.0)
    projection = project(offline, line(500, elapsed_s=10.0, ttft_p99_ms=9000.0))
    assert projection.words == "INVALID so far"
    assert projection.reasons == ("At this rate it will run about 20 s; at least 60 s needed.",)
    assert projection.left_s == pytest.approx(10.0)


def test_single_stream_goes_on_until_its_time_is_over() -> None:
    single = goal(scenario="SingleStream", num_samples=64, min_samples=64, percentile=0.9)
    projection = project(single, line(50, elapsed_s=10.0))
    assert projection.num_samples == 300 and projection.left_s == pytest.approx(50.0)


def test_an_error_that_loadgen_logged_is_certain() -> None:
    projection = project(goal(error="no such sample"), line(10))
    assert projection.certain and 'LoadGen logged an error: "no such sample".' in projection.reasons


def test_an_accuracy_test_has_no_verdict_before_it_is_judged() -> None:
    accuracy = SERVER.without_limits()
    projection = project(accuracy, line(500, ttft_p99_ms=9000.0, ttft_over=None, tpot_over=None))
    assert projection.verdict is None and projection.reasons == () and projection.left_s is not None


def test_a_replica_that_does_nothing_is_named() -> None:
    idle = ReplicaProgress(
        index=1, in_flight=0, running=0, waiting=0, kv_cache_usage=0.0, output_tokens=0
    )
    busy = msgspec.structs.replace(idle, index=0, in_flight=5, running=5, completed=500)
    projection = project(SERVER, line(500, replicas=[busy, idle]))
    assert projection.words == "INVALID so far"
    assert projection.reasons == ("No sample was done by replica 1.",)
