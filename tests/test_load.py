"""The estimated load would have met the limits, and a run without evidence gets no estimate."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import pytest

from sut.results.early_stopping import num_allowed, queries_needed
from sut.results.load import estimate
from sut.results.remedies import crossing
from sut.results.sample_log import SampleLog

LIMIT_MS = 80.0
Row = tuple[float, float, float]  # issued, first token, completed; ms


def log_of(rows: Sequence[Row]) -> SampleLog:
    """Samples of 11 tokens each."""
    issued, first, completed = zip(*sorted(rows, key=lambda row: row[2]), strict=True)
    return SampleLog(
        sample_index=array("q", range(len(rows))),
        replica=array("q", [0] * len(rows)),
        prompt_tokens=array("q", [9] * len(rows)),
        output_tokens=array("q", [11] * len(rows)),
        issued_ms=array("d", issued),
        admitted_ms=array("d", issued),
        first_token_ms=array("d", first),
        completed_ms=array("d", completed),
    )


def queue(qps: float, seed: int, seconds: float = 60) -> SampleLog:
    """Poisson arrivals at one server, 10 ms each on average; it completes 100 queries/s."""
    chance = random.Random(seed)
    now = free = 0.0
    rows = []
    while now < 1e3 * seconds:
        now += 1e3 * chance.expovariate(qps)
        free = max(now, free) + 10 * chance.uniform(0.5, 1.5)
        rows.append((now, free, free + 200 * chance.uniform(0.2, 1)))
    return log_of(rows)


def over(samples: SampleLog) -> int:
    return sum(samples.ttft_ms(row) > LIMIT_MS for row in range(len(samples)))


def passes(samples: SampleLog) -> bool:
    return queries_needed(over(samples), 0.99) <= len(samples)


def estimate_of(samples: SampleLog, tpot_limit_ms: float = 1000) -> tuple[float | None, str]:
    found = estimate(samples, ttft_limit_ms=LIMIT_MS, tpot_limit_ms=tpot_limit_ms, percentile=0.99)
    return found.qps, found.text


def test_a_run_at_the_estimated_load_passes() -> None:
    tried = passed = 0
    for seed in range(12):
        run = queue(75, seed)
        qps, text = estimate_of(run)
        if qps is None:
            continue
        assert not passes(run) and "estimate" in text
        assert 50 < qps < 70  # this queue passes up to about 65
        tried += 1
        passed += passes(queue(qps, seed + 100))
    assert tried >= 8
    assert passed / tried >= 0.65


def test_a_passing_run_proves_only_its_own_load() -> None:
    qps, text = estimate_of(queue(50, seed=1))
    assert qps == pytest.approx(50, rel=0.1)
    assert "tried no higher" in text


def test_an_overloaded_run_proves_no_load() -> None:
    qps, text = estimate_of(queue(95, seed=1))
    assert qps is None
    assert text.startswith("No load can be estimated from this run: ")


def test_an_exceeded_tpot_limit_proves_no_load() -> None:
    qps, text = estimate_of(queue(50, seed=1), tpot_limit_ms=1)
    assert qps is None and "quietest windows" in text


def test_too_few_queries_prove_no_load() -> None:
    qps, text = estimate_of(queue(50, seed=1, seconds=5))
    assert qps is None and "459 needed" in text
    assert "TTFT" not in text and "TPOT" not in text


def test_a_run_short_for_its_answers_proves_nothing() -> None:
    rows = [(float(i), i + 50.0, i + 5000.0) for i in range(1000)]
    qps, text = estimate_of(log_of(rows))
    assert qps is None and "too short for answers of 5 s" in text


# When a limit was crossed.


@pytest.mark.parametrize(
    ("num", "allowed"), [(458, None), (459, 0), (661, 0), (662, 1), (838, 2), (2010, 10)]
)
def test_early_stopping_allows_so_many_over_the_limit(num: int, allowed: int | None) -> None:
    assert num_allowed(num, 0.99) == allowed


def test_finds_when_a_run_exceeded_its_limit() -> None:
    slow = {100, 200, 300}
    rows = [(10.0 * i, 10 * i + (90.0 if i in slow else 5.0), 10 * i + 100.0) for i in range(700)]
    crossed = crossing(log_of(rows), "TTFT", LIMIT_MS, 0.99)
    assert crossed.num_over == 3
    assert crossed.first_s == pytest.approx(1.1)
    assert crossed.lost_s == pytest.approx(2.1)  # one of 700 may be over, not two
    assert crossing(log_of(rows), "TTFT", 95.0, 0.99).first_s is None
    assert crossing(log_of(rows), "TPOT", 9.0, 0.99).num_over == 697


def test_a_run_too_small_is_never_lost() -> None:
    crossed = crossing(log_of([(0.0, 90.0, 100.0)]), "TTFT", LIMIT_MS, 0.99)
    assert crossed.first_s == pytest.approx(0.1) and crossed.lost_s is None
