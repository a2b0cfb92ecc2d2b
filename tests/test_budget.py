"""A run is called hopeless exactly when LoadGen's early stopping can no longer pass."""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli import fast, latest, submit
from hypothesis import given
from hypothesis import strategies as st
from loadgen_logs import SMALLEST_VALID, make
from replay import served

from sut import _core
from sut.results import mllog, rules
from sut.results.budget import used_up
from sut.results.early_stopping import num_allowed, num_over_limit
from sut.results.goal import Goal, goal_of
from sut.results.progress import Reader
from sut.run.budget import BudgetWatch
from sut.rundir import RunDir

P99 = 0.99


def goal(num_queries: int, **changes: Any) -> Goal:
    values: dict[str, Any] = {
        "scenario": "Server",
        "performance": True,
        "num_samples": num_queries,
        "min_samples": 1,
        "schedule_s": 600.0,
        "min_duration_s": 600.0,
        "percentile": P99,
        "ttft_limit_ms": 2000.0,
        "tpot_limit_ms": 100.0,
        "error": None,
    }
    return Goal(**(values | changes))


@functools.cache
def loadgen_odds(h: int, t: int) -> float:
    """``odds`` of LoadGen's early_stopping.cc for p = 0.99 and no tolerance."""
    a, b, x = h, 1 + t, P99
    term = total = 1.0
    i = 0
    while abs(term) > 2.0**-33:
        term *= (1 - b + i) * (x / (x - 1)) / (1 + a + i)
        total += term
        i += 1
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + (b - 1) * math.log(1 - x) - log_beta) / a * total


def loadgen_passes(latencies: Sequence[bool]) -> bool:
    """LoadGen's verdict on one limit: its percentile and its early stopping, results.cc.
    ``latencies``: whether each query is over it."""
    n, t = len(latencies), sum(latencies)
    percentile_met = not sorted(latencies)[int(n * P99)]
    return percentile_met and n > t and loadgen_odds(n - t, t) < 1 - 0.99


@pytest.mark.parametrize(
    ("num_queries", "allowed"), [(459, 0), (661, 0), (662, 1), (837, 1), (838, 2), (13_368, 107)]
)
def test_the_budget_is_exact(num_queries: int, allowed: int) -> None:
    assert used_up(goal(num_queries), (allowed, allowed), 1.0) is None
    for over in ((allowed + 1, 0), (0, allowed + 1)):
        found = used_up(goal(num_queries), over, 12.3456)
        assert found is not None
        assert found.limit == ("TTFT" if over[0] else "TPOT")
        assert (found.num_over, found.num_allowed) == (allowed + 1, allowed)
        assert found.since_s == 12.346 and found.num_queries == num_queries and not found.ended


@given(num_queries=st.integers(459, 6000), seed=st.integers(0, 2**32), near=st.integers(-3, 3))
def test_hopeless_exactly_when_loadgen_will_say_invalid(
    num_queries: int, seed: int, near: int
) -> None:
    """Random runs near the budget, query by query: one that is called hopeless at any moment fails
    LoadGen's rules in the end, and one that fails them was called so."""
    chance = random.Random(seed)
    most = max(0, round(num_queries / 100 - 2.33 * math.sqrt(num_queries / 100)) + near)
    over = [[True] * count + [False] * (num_queries - count) for count in (most, most // 2)]
    for latencies in over:
        chance.shuffle(latencies)
    chance.shuffle(over)
    ttft, tpot = over
    counts, called_at = [0, 0], None
    for query in range(num_queries):
        counts[0] += ttft[query]
        counts[1] += tpot[query]
        if used_up(goal(num_queries), (counts[0], counts[1]), query):
            called_at = called_at or query
    assert (called_at is not None) == (not (loadgen_passes(ttft) and loadgen_passes(tpot)))


def test_ttft_and_tpot_have_a_budget_each() -> None:
    assert used_up(goal(13_368), (107, 107), 1.0) is None


def test_no_budget_without_limits_or_with_too_few_queries() -> None:
    assert used_up(goal(458), (400, 400), 1.0) is None
    assert used_up(goal(1000, performance=False), (900, 900), 1.0) is None
    assert used_up(goal(1000, ttft_limit_ms=None), (900, 900), 1.0) is None


@pytest.mark.parametrize(("slow_every", "valid"), [(499, True), (166, False)])
def test_agrees_with_loadgens_own_verdict(tmp_path: Path, slow_every: int, valid: bool) -> None:
    """Of 700 queries, one may be over."""
    conf = {**SMALLEST_VALID, "min_query_count": 700, "ttft_latency": 200, "tpot_latency": 100}
    made = make(tmp_path / "log", user_conf=conf, slow_every=slow_every, slow_ttft_ms=400)
    log = mllog.read(made)
    found = goal_of(log)
    assert found is not None and found.num_samples == log.count("result_query_count") == 700
    num_over = 700 // slow_every
    hopeless = used_up(found, (num_over, 0), 1.0)
    assert log.values["early_stopping_met"] is (hopeless is None) is valid


USER_CONF = """
*.Server.target_qps = 1000
*.Server.min_duration = 1000
*.Server.min_query_count = 1000
*.Server.ttft_latency = 60
*.Server.tpot_latency = 1000
*.Server.use_token_latencies = 1
"""


def watched(dispatcher: _core.Dispatcher, folder: Path, *, stop: bool) -> BudgetWatch:
    """A LoadGen test of some 1,000 queries in a second, run to its end."""
    folder.mkdir()
    test = _core.LoadGenTest(
        dispatcher,
        model="llama3_1-8b",
        scenario="Server",
        mode="performance",
        user_conf=USER_CONF,
        audit_conf="",
        log_dir=str(folder),
        sut_name="replay",
        qsl_name="numbers",
    )
    watch = BudgetWatch(test, dispatcher, folder, stop=stop)
    begin = time.monotonic()
    test.start()
    while not test.wait(0.01):
        watch.look(time.monotonic() - begin)
    assert dispatcher.failure is None and test.ended != test.finished
    return watch


def test_counts_what_loadgen_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The engine becomes too slow for the load after 300 samples. Without the option the test goes
    on, and LoadGen's own count decides as ours did."""
    with served(100, 1, "--step-base-us", "100", "--fault", "slow@300:150") as dispatcher:
        whole = watched(dispatcher, tmp_path / "whole", stop=False)
        assert whole.hopeless is not None and not whole.hopeless.ended
        assert whole.hopeless.limit == "TTFT" and whole.hopeless.since_s < 20
        log = mllog.read(tmp_path / "whole")
        asked = rules.asked_for(log)
        assert asked is not None and asked[0] == "TTFT"
        num_queries = log.count("result_query_count")
        assert whole.hopeless.num_queries == num_queries
        of_loadgen = num_over_limit(num_queries + asked[1], P99)
        assert of_loadgen is not None and whole.num_over is not None
        # LoadGen takes its times later, so it may count a few more, never fewer.
        assert of_loadgen - 0.02 * num_queries <= whole.num_over[0] <= of_loadgen
        assert capsys.readouterr().err.count("can no longer be VALID") == 1

        ended = watched(dispatcher, tmp_path / "ended", stop=True)
        assert ended.hopeless is not None and ended.hopeless.ended
        stats = dispatcher.stats()
        assert stats.issued == stats.completed + stats.withdrawn < num_queries
        assert "result_validity" not in mllog.read_ended(tmp_path / "ended").values


def test_a_run_within_its_limits_is_not_hopeless(tmp_path: Path) -> None:
    with served(100) as dispatcher:
        watch = watched(dispatcher, tmp_path / "log", stop=False)
        passed = mllog.read(tmp_path / "log").flag("early_stopping_met")
        assert not (passed and watch.hopeless)
        assert watch.num_over is not None and watch.num_over[1] == 0


OVERLOADED = (
    *("--set", "target_qps=400", "--set", "min_duration_ms=20000", "--set", "ttft_latency_ms=300"),
    *("--set", "engine.max_num_seqs=4", "--set", "engine.replay.step_base_us=10000"),
)


def test_a_hopeless_phase_is_ended(tmp_path: Path) -> None:
    """A load of ten times what the engine can do, for 20 s: over within the first."""
    run = submit(tmp_path, *fast(), *OVERLOADED, "--stop-when-hopeless")
    assert run.returncode == 1, run.stdout + run.stderr
    record = latest(tmp_path)
    assert record.status == "completed" and record.verdict == "INVALID"
    (phase,) = record.phases
    found, stats = phase.hopeless, phase.dispatcher
    assert found is not None and found.ended and found.limit == "TTFT" and found.since_s < 10
    assert found.num_over > found.num_allowed == num_allowed(found.num_queries, P99)
    assert stats is not None and stats.withdrawn > 0 and stats.completed > 0
    assert stats.issued == stats.completed + stats.withdrawn
    assert [reason.code for reason in phase.verdict.reasons] == ["early_stopping"]
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert len(run_dir.samples("performance").read_text().splitlines()) == stats.completed + 1
    lines = [line for line in Reader(run_dir.progress).read() if line.phase == "performance"]
    assert lines[-1].hopeless == found
    assert run.stdout.count("can no longer be VALID") == 1
    report = run_dir.report.read_text()
    assert "--set scenarios.server.target_qps=" in report
