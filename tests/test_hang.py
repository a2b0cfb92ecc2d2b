"""When LoadGen counts as hung: against the queries that its own schedule makes."""

from __future__ import annotations

import math

import pytest

from sut.plan import user_conf
from sut.plan.benchmark import ScenarioSettings
from sut.run import hang


def text(scenario: str, qps: float) -> str:
    return user_conf.text(f"llama3_1-8b.{scenario}", ScenarioSettings(), qps, "")


@pytest.mark.parametrize("qps", [0.001, 0.5, 4000.0])
def test_a_rare_query_is_awaited(qps: float) -> None:
    """A billion of LoadGen's exponential gaps are shorter, but for a chance of one in 1,000."""
    longest_s = (math.log(1e9) + math.log(1e3)) / qps
    assert hang.limit_s(5, text("Server", qps)) > longest_s + hang.LEAST_S


def test_only_server_queries_come_at_random() -> None:
    assert hang.limit_s(5, text("Offline", 0.001)) == hang.LEAST_S
    assert hang.limit_s(90, text("SingleStream", 0.001)) == hang.STALLS * 90
