"""The projected verdict and end of a running phase."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadgen_logs import smallest_valid, ten_queries

from sut.results import mllog
from sut.results.early_stopping import queries_needed
from sut.results.goal import Goal, goal_of
from sut.results.progress import Line, ReplicaProgress
from sut.watch.projection import project

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


def log_with(values: dict[str, mllog.Scalar]) -> mllog.DetailLog:
    return mllog.DetailLog(path="", values=values, errors=())


def line(completed: int = 500, **changes: Any) -> Line:
    """A phase that keeps up with its load, well within its limits."""
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


def test_run_within_limits_is_valid_so_far() -> None:
    projection = project(SERVER, line())
    assert projection.words == "VALID so far" and projection.reasons == ()
    assert projection.left_s == pytest.approx(50.0)


def test_compliance_test_has_no_limits() -> None:
    values = dict(mllog.read(ten_queries()).values)
    performance = goal_of(log_with(values))
    compliance = goal_of(log_with(values | {"effective_accuracy_log_sampling_target": 100}))
    assert performance is not None and performance.performance
    assert compliance is not None and not compliance.performance
    assert compliance.num_samples == performance.num_samples == 10
    assert project(compliance, line(5)).words == ""


def test_run_that_falls_behind_ends_by_its_rate() -> None:
    projection = project(SERVER, line(250, elapsed_s=50.0, queued=200, in_flight=0))
    assert projection.left_s == pytest.approx(150.0)


def test_the_first_seconds_count_samples_in_flight_as_half_done() -> None:
    projection = project(SERVER, line(20, elapsed_s=4.0, queued=1, in_flight=40))
    assert projection.left_s == pytest.approx(96.0)  # of 100 s; by the completed alone 196 s
    late = project(SERVER, line(250, elapsed_s=20.0, queued=1, in_flight=10))
    assert late.left_s == pytest.approx(80.0)  # LoadGen's schedule ends no earlier


def test_projects_nothing_before_the_first_sample() -> None:
    projection = project(SERVER, line(0, ttft_p99_ms=None, tpot_p99_ms=None))
    assert projection.verdict is None and projection.words == "" and projection.left_s is None


def test_recoverable_latency_is_invalid_so_far() -> None:
    over = line(100, ttft_p99_ms=2300.0, ttft_over=2)
    projection = project(SERVER, over)
    assert projection.words == "INVALID so far"
    assert projection.reasons == ("TTFT p99 is 2,300 ms; the limit is 2,000 ms.",)


def test_too_many_queries_over_a_limit_are_certain() -> None:
    projection = project(SERVER, line(100, tpot_p99_ms=140.0, tpot_over=30))
    assert projection.words == "will be INVALID"
    assert "30 queries were over the TPOT limit, and LoadGen allows 2" in projection.reasons[0]


@given(num_samples=st.integers(500, 20_000), over=st.integers(0, 400))
def test_certain_exactly_if_early_stopping_cannot_pass(num_samples: int, over: int) -> None:
    projection = project(goal(num_samples=num_samples), line(450, ttft_over=over))
    assert projection.certain == (queries_needed(over, 0.99) > num_samples)


def test_ten_queries_will_be_invalid_whatever_the_latency() -> None:
    log = mllog.read(ten_queries())
    values = {k: v for k, v in log.values.items() if not k.startswith(("result", "early"))}
    found = goal_of(log_with(values))
    assert found is not None and found.num_samples == 10
    projection = project(found, line(3, elapsed_s=0.1))
    assert projection.words == "will be INVALID"
    assert any("too few to be 99% sure of p99; 459 needed" in r for r in projection.reasons)
    assert any("at least 600 s needed" in r for r in projection.reasons)
    assert not any("TTFT" in r or "TPOT" in r for r in projection.reasons)


def test_reads_the_goal_from_loadgens_first_lines() -> None:
    found = goal_of(mllog.read(smallest_valid()))
    assert found is not None and found.scenario == "Server" and found.performance
    assert (found.num_samples, found.min_samples) == (500, 480)  # whole passes of 100 samples
    assert (found.ttft_limit_ms, found.tpot_limit_ms) == (2000.0, 100.0)
    assert 0.3 < found.schedule_s < 1.0 and found.min_duration_s == 0.3


def test_incomplete_beginning_gives_no_goal() -> None:
    values = mllog.read(smallest_valid()).values
    assert goal_of(log_with({})) is None
    values = {k: v for k, v in values.items() if k != "generated_query_count"}
    assert goal_of(log_with(values)) is None


def test_offline_that_will_be_too_short_is_invalid() -> None:
    offline = goal(scenario="Offline", ttft_limit_ms=None, tpot_limit_ms=None, min_duration_s=60.0)
    projection = project(offline, line(500, elapsed_s=10.0, ttft_p99_ms=9000.0, in_flight=0))
    assert projection.words == "INVALID so far"
    assert projection.reasons == ("At this rate it will run about 20 s; at least 60 s needed.",)
    assert projection.left_s == pytest.approx(10.0)


def test_single_stream_continues_for_its_minimum_duration() -> None:
    single = goal(scenario="SingleStream", num_samples=64, min_samples=64, percentile=0.9)
    projection = project(single, line(50, elapsed_s=10.0, in_flight=0))
    assert projection.num_samples == 300 and projection.left_s == pytest.approx(50.0)


def test_error_logged_by_loadgen_is_certain() -> None:
    projection = project(goal(error="no such sample"), line(10))
    assert projection.certain and 'LoadGen logged an error: "no such sample".' in projection.reasons


def test_accuracy_test_has_no_projected_verdict() -> None:
    accuracy = msgspec.structs.replace(
        SERVER, performance=False, ttft_limit_ms=None, tpot_limit_ms=None
    )
    projection = project(accuracy, line(500, ttft_p99_ms=9000.0, ttft_over=None, tpot_over=None))
    assert projection.verdict is None and projection.reasons == () and projection.left_s is not None


def test_names_an_idle_replica() -> None:
    idle = ReplicaProgress(
        index=1, in_flight=0, running=0, waiting=0, kv_cache_usage=0.0, output_tokens=0
    )
    busy = msgspec.structs.replace(idle, index=0, in_flight=5, running=5, completed=500)
    projection = project(SERVER, line(500, replicas=[busy, idle]))
    assert projection.words == "INVALID so far"
    assert projection.reasons == ("No sample was completed by replica 1.",)
