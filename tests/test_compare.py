"""sut.compare: a change is a regression only beyond noise."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import ROOM, environment, fast, set_arguments, submit
from loadgen_logs import smallest_valid, ten_queries
from records import PLAN, accuracy, completed, failed, performance

from sut.compare import text
from sut.errors import InputError
from sut.history.comparison import Comparison, Difference, Run, compare, compare_with_history
from sut.plan.benchmark import Scenario
from sut.results import record
from sut.results.record import Record
from sut.rundir import RunDir

TTFT_P99 = "result_first_token_99.00_percentile_latency_ns"
TOKENS_PER_S = "result_completed_tokens_per_second"
OTHER_PLAN = msgspec.structs.replace(
    PLAN, engine=msgspec.structs.replace(PLAN.engine, max_num_seqs=32)
)


def measured(ttft_ms: float = 50.0, tokens_per_s: float = 1000.0, **changes: Any) -> Record:
    """A VALID run of PLAN with this TTFT p99 and this throughput."""
    phase = performance(smallest_valid())
    values = {**phase.loadgen, TTFT_P99: ttft_ms * 1e6, TOKENS_PER_S: tokens_per_s}
    result = completed(msgspec.structs.replace(phase, loadgen=values))
    return msgspec.structs.replace(result, **changes)


def other_plan(*values: float) -> list[Record]:
    digest = OTHER_PLAN.digest()
    return [measured(value, plan=OTHER_PLAN, plan_digest=digest) for value in values]


def runs(*ttft_ms: float) -> list[Run]:
    return [Run(name=f"run-{i}", record=measured(ttft)) for i, ttft in enumerate(ttft_ms)]


def of(comparison: Comparison, figure: str) -> Difference:
    return next(d for d in comparison.differences if d.figure == figure)


def test_calls_a_similar_run_within_noise() -> None:
    earlier = runs(50, 51, 49, 50.5, 49.5)
    comparison = compare_with_history(Run(name="new", record=measured(50.8)), earlier, 0.02)
    assert of(comparison, "TTFT p99").word == "within noise" and comparison.regressions == ()
    assert "5 earlier runs" in comparison.noise


def test_names_the_figure_of_a_regression() -> None:
    earlier = runs(50, 51, 49, 50.5, 49.5)
    comparison = compare_with_history(Run(name="new", record=measured(60)), earlier, 0.02)
    ttft = of(comparison, "TTFT p99")
    assert ttft.word == "worse" and ttft.low is not None and ttft.low > 0
    assert comparison.regressions == ("TTFT p99 is 20.0% worse",)


def test_lower_is_better_only_for_latency() -> None:
    earlier = runs(50, 51, 49, 50.5, 49.5)
    new = Run(name="new", record=measured(40, tokens_per_s=900))
    comparison = compare_with_history(new, earlier, 0.02)
    assert of(comparison, "TTFT p99").word == "better"
    assert of(comparison, "throughput").word == "worse"  # all earlier ones are equal
    assert comparison.regressions == ("throughput is 10.0% worse",)


def test_ignores_changes_below_the_tolerance() -> None:
    earlier = runs(50, 50.01, 49.99, 50)
    comparison = compare_with_history(Run(name="new", record=measured(50.5)), earlier, 0.02)
    assert of(comparison, "TTFT p99").word == "worse" and comparison.regressions == ()


def test_two_earlier_runs_leave_noise_unknown() -> None:
    comparison = compare_with_history(Run(name="new", record=measured(90)), runs(50, 50), 0.02)
    assert of(comparison, "TTFT p99").word == "noise not known" and comparison.regressions == ()


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (failed(record.Failure(code="engine_died", message="exit 1")), "FAILED: engine_died"),
        (completed(performance(ten_queries())), "INVALID: performance, min_duration: The test ran"),
    ],
)
def test_a_lost_verdict_is_a_regression(after: Record, words: str) -> None:
    comparison = compare_with_history(Run(name="new", record=after), runs(50), 0.02)
    assert "it was VALID and is " + words in comparison.regressions[0]


def test_a_cancelled_run_is_no_regression() -> None:
    after = failed(record.Failure(code="cancelled", message="cancelled by Ctrl-C"))
    comparison = compare_with_history(Run(name="new", record=after), runs(50), 0.02)
    assert comparison.regressions == ()


def test_another_benchmark_has_no_regression() -> None:
    before = Run(name="a", record=measured(50))
    plan = msgspec.structs.replace(before.known.plan, benchmark="other")
    after = Run(name="b", record=msgspec.structs.replace(other_plan(90)[0], plan=plan))
    repeats = [measured(51), measured(49), *other_plan(91, 89)]
    comparison = compare(before, after, repeats, 0.02)
    assert of(comparison, "TTFT p99").word == "worse" and not comparison.regressions
    printed = text(comparison)
    assert "REGRESSION" not in printed and "the runs are of different benchmarks" in printed


def test_repeats_of_both_plans_give_the_noise() -> None:
    before = Run(name="a", record=measured(50))
    after = Run(name="b", record=other_plan(60)[0])
    repeats = [measured(51), measured(49), *other_plan(61, 59)]
    comparison = compare(before, after, repeats, 0.02)
    assert "6 runs of the same plans" in comparison.noise
    assert of(comparison, "TTFT p99").word == "worse"
    assert comparison.changed == ("plan.engine.max_num_seqs: 16 -> 32",)


def test_an_outlier_does_not_widen_its_own_noise() -> None:
    outlier = Run(name="b", record=measured(90))
    repeats = [measured(value) for value in (50, 51, 49, 50)]
    comparison = compare(Run(name="a", record=measured(50)), outlier, repeats, 0.02)
    assert of(comparison, "TTFT p99").word == "worse"


def test_one_run_on_each_side_gives_no_intervals() -> None:
    comparison = compare(*runs(50, 60), [], 0.02)
    ttft = of(comparison, "TTFT p99")
    assert ttft.change == pytest.approx(0.2) and (ttft.low, ttft.high) == (None, None)
    assert ttft.word == "noise not known" and comparison.regressions == ()
    assert comparison.noise == "unknown: one run on each side is too few to measure it"


def test_too_few_repeats_give_no_intervals() -> None:
    comparison = compare(*runs(50, 60), [measured(51), measured(49)], 0.02)
    assert of(comparison, "TTFT p99").word == "noise not known"
    assert comparison.noise == "unknown: too few runs of the same plans (2)"


def test_noise_that_hides_a_doubling_gives_no_interval() -> None:
    before, after = Run(name="a", record=measured(20)), Run(name="b", record=other_plan(900)[0])
    repeats = [measured(30), measured(300), *other_plan(50, 2000)]
    ttft = of(compare(before, after, repeats, 0.02), "TTFT p99")
    assert (ttft.word, ttft.low, ttft.high) == ("too noisy", None, None)
    shown = text(compare(before, after, repeats, 0.02))
    assert "too noisy: runs of one plan differ" in shown and "323,615,252%" not in shown


def test_a_change_beyond_wide_noise_has_its_interval() -> None:
    repeats = [measured(value) for value in (50, 70, 100, 70)]
    comparison = compare(*runs(70, 7000), repeats, 0.02)
    ttft = of(comparison, "TTFT p99")
    assert ttft.word == "worse" and ttft.low is not None and ttft.low > 1


@pytest.mark.parametrize(
    ("samples", "p99", "p50"),
    [
        (9, "too few samples", "too few samples"),
        (10, "too few samples", "within noise"),
        (99, "too few samples", "within noise"),
        (100, "worse", "within noise"),
    ],
)
def test_few_samples_give_no_interval(samples: int, p99: str, p50: str) -> None:
    """Whichever of the runs has them."""
    new, earlier = Run(name="new", record=measured(90)), runs(50, 51, 49, 50)
    few = Run(name="few", record=with_samples(measured(50), samples))
    of_it = compare_with_history(
        Run(name="new", record=with_samples(new.known, samples)), earlier, 0.02
    )
    of_history = compare_with_history(new, [few, *earlier], 0.02)
    for comparison in (of_it, of_history):
        assert of(comparison, "TTFT p99").word == p99
        assert of(comparison, "TTFT p50").word == p50
        assert (of(comparison, "TTFT p99").low is None) == (p99 == "too few samples")
    assert ("p99 needs 100 samples" in text(of_it)) == (p99 == "too few samples")


def with_samples(of: Record, num: int) -> Record:
    (phase,) = of.phases
    values = {**phase.loadgen, "result_query_count": num}
    return msgspec.structs.replace(of, phases=(msgspec.structs.replace(phase, loadgen=values),))


def test_refuses_runs_of_different_scenarios() -> None:
    plan = msgspec.structs.replace(PLAN, scenario=Scenario.OFFLINE)
    with pytest.raises(
        InputError, match=r"b is not comparable with run-0: plan.scenario: server -> offline"
    ):
        compare(*runs(50), Run(name="b", record=measured(plan=plan)), [], 0.02)


def test_shows_scores_without_judging_them() -> None:
    before, after = (
        completed(performance(smallest_valid()), accuracy(score)) for score in (31.0, 30.5)
    )
    comparison = compare(Run(name="a", record=before), Run(name="b", record=after), [], 0.02)
    assert of(comparison, "rouge1").after == 30.5 and comparison.regressions == ()


def test_names_a_package_that_changed() -> None:
    before, after = measured(), measured()
    packages = {**after.environment.packages, "vllm": "0.99.0"}
    environment = msgspec.structs.replace(after.environment, packages=packages)
    after = msgspec.structs.replace(after, environment=environment)
    comparison = compare(Run(name="a", record=before), Run(name="b", record=after), [], 0.02)
    (changed,) = comparison.changed
    assert changed.startswith("packages.vllm: ") and changed.endswith(" -> 0.99.0")


# The command.


def command(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut.compare", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def nights(cwd: Path, ttft_ms: Sequence[float]) -> None:
    """One run a night of one plan, under ``cwd/runs``."""
    for day, value in enumerate(ttft_ms, start=1):
        run = RunDir(cwd / "runs" / f"night-{day}")
        result = measured(value, run_id=run.root.name, created_utc=f"2026-11-{day:02}T02:00:00Z")
        record.write(result, run)
        run.plan.write_bytes(msgspec.json.encode(PLAN))


def test_refuses_the_same_run_twice(tmp_path: Path) -> None:
    nights(tmp_path, [50])
    run = tmp_path / "runs" / "night-1"
    shown = command(tmp_path, "night-1", str(run))
    assert shown.returncode == 2 and shown.stdout == ""
    assert shown.stderr.startswith("error: the same run twice: night-1\nhint: ")
    assert shown.stderr.endswith(f"python -m sut.compare {run}\n")


def test_exits_with_1_for_a_nightly_regression(tmp_path: Path) -> None:
    nights(tmp_path, [50, 51, 49, 50, 75])
    shown = command(tmp_path, "night-5", "--fail-on-regression")
    assert shown.returncode == 1, shown.stderr
    assert "REGRESSION: TTFT p99 is 50.0% worse" in shown.stdout
    assert "not verified by MLCommons" in shown.stdout
    assert command(tmp_path, "night-5").returncode == 0
    # Later runs are ignored.
    assert command(tmp_path, "night-4", "--fail-on-regression").returncode == 0


def test_exits_with_0_within_noise(tmp_path: Path) -> None:
    nights(tmp_path, [50, 51, 49, 50, 50.5])
    shown = command(tmp_path, "night-5", "--fail-on-regression")
    assert shown.returncode == 0 and "within noise" in shown.stdout
    assert "REGRESSION" not in shown.stdout


def test_takes_the_tolerance_in_percent(tmp_path: Path) -> None:
    nights(tmp_path, [50, 51, 49, 50, 75])
    tolerant = command(tmp_path, "night-5", "--fail-on-regression", "--tolerance", "60")
    assert tolerant.returncode == 0


def test_accepts_the_first_run_of_a_plan(tmp_path: Path) -> None:
    nights(tmp_path, [50])
    shown = command(tmp_path, "night-1", "--fail-on-regression")
    assert shown.returncode == 0 and "no earlier run of its plan" in shown.stderr
    assert shown.stdout == ""


def test_names_an_earlier_run_of_another_plan(tmp_path: Path) -> None:
    nights(tmp_path, [50])
    (other,) = other_plan(51)
    later = msgspec.structs.replace(other, run_id="later", created_utc="2099-01-01T00:00:00Z")
    record.write(later, RunDir(tmp_path / "runs" / "later"))
    shown = command(tmp_path, "later")
    assert shown.returncode == 0 and "has no earlier run of its plan" in shown.stderr
    hint = "an earlier run of its benchmark and scenario with another setting, the last: "
    assert f"hint: {hint}python -m sut.compare night-1 later" in shown.stderr


def test_prints_json(tmp_path: Path) -> None:
    nights(tmp_path, [50, 51, 49, 50, 75])
    (printed,) = json.loads(command(tmp_path, "night-5", "--json").stdout)
    assert printed["after"] == "night-5" and len(printed["before"]) == 4
    ttft = next(d for d in printed["differences"] if d["figure"] == "TTFT p99")
    assert ttft["word"] == "worse" and ttft["low"] < ttft["change"] < ttft["high"]


def test_names_the_runs_without_figures() -> None:
    stopped = Run(name="b", record=failed(record.Failure(code="engine_died", message="exit 1")))
    shown = text(compare(*runs(50), stopped, [], 0.02))
    assert "no figures to compare: no finished performance test in b" in shown


def test_refuses_an_unknown_run(tmp_path: Path) -> None:
    nights(tmp_path, [50])
    shown = command(tmp_path, "night-1", "night-2")
    assert shown.returncode == 2 and "night-2: no such run" in shown.stderr


def test_compares_real_runs_and_hints_at_repeats(tmp_path: Path) -> None:
    longer = [*fast(), *ROOM, *set_arguments(["scenarios.server.min_duration_ms=1500"])]
    slower = set_arguments(["engine.replay.step_base_us=1500"])
    for arguments in (longer, longer, [*longer, *slower]):
        assert submit(tmp_path, *arguments).returncode == 0
    one, again, slow = sorted(
        path.name for path in (tmp_path / "runs").iterdir() if path.name.startswith("2")
    )
    shown = command(tmp_path, one, again, slow, "--json")
    hint = f"python -m sut.submit --again {tmp_path / 'runs' / one}"
    assert shown.stderr == f"hint: repeat the runs to measure noise: {hint}\n"
    comparisons = json.loads(shown.stdout)
    assert [comparison["after"] for comparison in comparisons] == [again, slow]
    for comparison in comparisons:
        assert "one run on each side is too few" in comparison["noise"]
        assert all(d["low"] is None for d in comparison["differences"])
    tpot = next(d for d in comparisons[1]["differences"] if d["figure"] == "TPOT p50")
    assert tpot["word"] == "noise not known" and tpot["change"] > 0.5
    assert "plan.engine.replay.step_base_us: 200.0 -> 1500.0" in comparisons[1]["changed"]
