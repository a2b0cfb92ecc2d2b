"""The harness's overhead: measured before the tests, recorded, and never a run's failure."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cli import fast, latest, submit
from loadgen_logs import ten_queries
from plans import plan_of
from records import PLAN, completed, performance

from sut.plan.benchmark import Preset, Scenario
from sut.report import overhead as report
from sut.report.render import render
from sut.results import issue_delay
from sut.results.measures import Measures, Quantiles
from sut.results.overhead import Ceiling, Overhead, Paced, Tail, is_near_the_ceiling, load_share
from sut.results.overhead import share as share_of
from sut.run import overhead
from sut.run.overhead_probe import Probe

PROBE = Probe(prompt_tokens=64, max_tokens=16, max_num_seqs=8, planned_qps=50.0)
FOUND = Overhead(
    ceiling=Ceiling(num_tokens=100, token_events_per_s=10_000.0, cpu_us_per_token=0.5),
    paced=Paced(
        planned_qps=5.0,
        qps=700.0,
        num_queries=1000,
        num_tokens=16,
        ttft_us=Tail(p50=200.0, p99=500.0, p999=900.0),
        tpot_us=Tail(p50=2.0, p99=4.0, p999=8.0),
        cpu_us_per_token=3.0,
    ),
)


def test_a_run_records_overhead_and_issue_delays(tmp_path: Path) -> None:
    done = submit(tmp_path, *fast(), "--preset", "smoke", "--set", "site.measure_overhead=true")
    record = latest(tmp_path)
    assert record.status == "completed", done.stderr
    assert record.overhead is not None and record.overhead.not_measured == ""
    ceiling, paced = record.overhead.ceiling, record.overhead.paced
    assert ceiling is not None and paced is not None
    assert ceiling.num_tokens == 64 and ceiling.token_events_per_s > 0
    assert 0 < paced.ttft_us.p50 <= paced.ttft_us.p99 <= paced.ttft_us.p999
    assert (paced.planned_qps, paced.qps) == (800.0, 800.0) and paced.num_queries > 1000
    steps = [step.name for step in record.timings]
    assert steps.index("overhead") < steps.index("performance")
    phase = record.phases[0]
    delay, values = phase.issue_delay, phase.loadgen
    assert delay is not None and sum(delay.scheduled) == sum(delay.issued)
    assert sum(delay.issued) == values["result_query_count"]
    text = (tmp_path / "runs" / "latest" / "report.md").read_text()
    assert "## Overhead" in text and "of the measured p99" in text and "scheduled time" in text


def test_measures_by_default_only_models_and_not_quick_runs() -> None:
    assert plan_of("smollm2-135m-news").measure_overhead
    assert not plan_of("smollm2-135m-news", preset=Preset.QUICK).measure_overhead
    assert not plan_of("replay").measure_overhead
    assert plan_of("replay", sets=["site.measure_overhead=true"]).measure_overhead
    off = plan_of("smollm2-135m-news", sets=["site.measure_overhead=false"])
    assert not off.measure_overhead


@pytest.mark.parametrize(
    ("engine", "within_s", "reason"),
    [
        ("/bin/false", 30.0, "the replay engine was not ready: it exited with 1"),
        ("/no/such/engine", 30.0, "cannot start /no/such/engine"),
        ("/bin/sleep", 0.01, "not finished after 0.01 s"),
    ],
)
def test_reports_why_it_could_not_be_measured(engine: str, within_s: float, reason: str) -> None:
    found = overhead.run(msgspec.structs.replace(PROBE, engine=engine), within_s)
    assert found.ceiling is None and found.paced is None
    assert reason in found.not_measured


def test_a_report_states_why_there_is_no_overhead() -> None:
    record = msgspec.structs.replace(completed(), overhead=Overhead(not_measured="no engine"))
    assert "## Overhead\n\nNot measured: no engine" in render(record, "RUN", {})
    assert "## Overhead" not in render(completed(), "RUN", {})


def measures(target_qps: float | None, tokens_per_s: float) -> Measures:
    """Of answers of ten tokens."""
    none = Quantiles(p50=None, p90=None, p99=None)
    return Measures(
        target_qps=target_qps,
        num_queries=100,
        num_samples=100,
        duration_s=10.0,
        samples_per_s=tokens_per_s / 10,
        tokens_per_s=tokens_per_s,
        latency_ms=none,
        ttft_ms=none,
        tpot_ms=none,
    )


@pytest.mark.parametrize(
    ("scenario", "target_qps", "tokens_per_s", "share", "near"),
    [
        (Scenario.SERVER, 100.0, 500.0, 0.1, False),
        (Scenario.SERVER, 101.0, 500.0, 0.101, True),
        (Scenario.OFFLINE, 5000.0, 500.0, 0.05, False),
        (Scenario.SINGLE_STREAM, None, 2000.0, 0.2, True),
    ],
)
def test_doubts_a_load_above_a_tenth_of_the_ceiling(
    scenario: Scenario, target_qps: float | None, tokens_per_s: float, share: float, near: bool
) -> None:
    of = measures(target_qps, tokens_per_s)
    assert load_share(FOUND, scenario, of) == pytest.approx(share)
    assert is_near_the_ceiling(FOUND, scenario, of) is near
    assert load_share(Overhead(), scenario, of) is None


def test_advises_where_the_ceiling_is_near() -> None:
    phase = performance(ten_queries())
    low = msgspec.structs.replace(FOUND.ceiling, token_events_per_s=1.0)
    near = msgspec.structs.replace(FOUND, ceiling=low)
    plan = msgspec.structs.replace(PLAN, preset=Preset.OFFICIAL)
    record = msgspec.structs.replace(completed(phase, plan=plan), overhead=near)
    (advice,) = report.advice(record, phase)
    assert "the harness may be part of the latencies" in advice
    assert not list(report.advice(completed(phase, plan=plan), phase))


def test_a_share_is_at_most_everything() -> None:
    assert share_of(500.0, 5.0) == pytest.approx(0.1)
    assert share_of(500.0, 0.25) == 1.0
    assert share_of(500.0, None) is None


def test_delays_count_from_the_query_issued_soonest() -> None:
    scheduled = [37.5 * n for n in range(40)]
    late = [at + 500.0 + (30.0 if n == 20 else 0.0) for n, at in enumerate(scheduled)]
    found = issue_delay.of(scheduled, late[::-1])
    assert found is not None
    assert (found.p50_ms, found.max_ms) == (0.0, 30.0)
    assert found.max_ms_by_second == (30.0, 0.0)
    assert found.scheduled == (27, 13) and found.issued == (27, 13)
    assert issue_delay.of(scheduled, late[1:]) is None
    assert issue_delay.of([], []) is None
