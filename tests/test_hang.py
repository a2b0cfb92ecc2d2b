"""When LoadGen counts as hung: against the queries that its own schedule makes."""

from __future__ import annotations

import math

import msgspec
import pytest
from plans import plan_of

from sut.plan.benchmark import Scenario
from sut.plan.plan import Plan
from sut.run import hang


def plan_at(qps: float | str, scenario: Scenario = Scenario.SERVER) -> Plan:
    return plan_of("replay", scenario, sets=[f"scenarios.{scenario}.target_qps={qps}"])


def longest_s(qps: float) -> float:
    """A billion of LoadGen's exponential gaps are shorter, but for a chance of one in 1,000."""
    return (math.log(1e9) + math.log(1e3)) / qps


@pytest.mark.parametrize("qps", [0.001, 0.5, 4000.0])
def test_a_rare_query_is_awaited(qps: float) -> None:
    assert hang.limit_s(plan_at(qps)) > longest_s(qps) + hang.LEAST_S


def test_a_rare_query_of_a_measured_load_is_awaited() -> None:
    assert hang.limit_s(plan_at("auto"), 0.001) > longest_s(0.001) + hang.LEAST_S


def test_a_rare_query_of_a_sweep_is_awaited() -> None:
    plan = plan_of("replay", sweep=(0.001, 4.0))
    slow, fast = (hang.limit_s(plan, plan.chosen_qps(test)) for test in plan.tests[:2])
    assert slow > longest_s(0.001) + hang.LEAST_S > longest_s(4.0) + hang.LEAST_S
    assert slow - fast == pytest.approx(hang.GAPS / 0.001 - hang.GAPS / 4.0)


def test_only_server_queries_come_at_random() -> None:
    plan = plan_at(0.001, Scenario.OFFLINE)
    few = msgspec.structs.replace(plan.timeouts, stall_s=5.0)
    assert hang.limit_s(msgspec.structs.replace(plan, timeouts=few)) == hang.LEAST_S
    single = plan_of("replay", Scenario.SINGLE_STREAM)
    long = msgspec.structs.replace(single.timeouts, stall_s=90.0)
    assert hang.limit_s(msgspec.structs.replace(single, timeouts=long)) == hang.STALLS * 90
