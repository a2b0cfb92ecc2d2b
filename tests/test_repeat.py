"""Several performance tests on one start of the engines: ``--repeat N``."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cli import environment, fast, latest, set_arguments, submit
from jobs import Job, plan_for, write_plan
from loadgen_logs import smallest_valid
from plans import plan_of
from records import completed, performance, render

from sut.history import comparison
from sut.history.comparison import Run
from sut.plan.plan import Mode
from sut.report import repeats
from sut.report.summary import summary
from sut.results.phase_record import PhaseRecord
from sut.rundir import RunDir

# Limits that a machine under other work meets.
ROOM = ("scenarios.server.ttft_latency_ms=5000", "scenarios.server.tpot_latency_ms=500")


def test_a_run_has_several_tests_and_their_spread(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), *set_arguments(ROOM), "--repeat", "2", "--mode", "all")
    assert run.returncode == 0, run.stdout + run.stderr
    found = latest(tmp_path)
    assert [phase.name for phase in found.phases][:3] == [
        "performance",
        "performance-2",
        "accuracy",
    ]
    for name in ("performance", "performance-2"):
        assert (tmp_path / "runs/latest/loadgen" / name / "mlperf_log_detail.txt").is_file()
        assert f"  test      {name}: VALID" in run.stdout
    assert "2 of 2 performance tests VALID; mean, 95% interval:" in run.stdout
    report = (tmp_path / "runs/latest/report.md").read_text()
    assert "## Repeats" in report and "| figure | performance | performance-2 | mean |" in report
    verified = subprocess.run(
        [sys.executable, "-m", "sut.verify", "latest"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_requeued_run_repeats_no_finished_test(tmp_path: Path) -> None:
    plan = plan_for(1, "scenarios.server.min_duration_ms=4000", mode=Mode.PERFORMANCE, repeat=2)
    run_dir = write_plan(plan, tmp_path / "run")
    with Job(run_dir, 1) as job:
        job.until_measuring("performance-2")
        job.signal(0, signal.SIGTERM)
        assert job.wait() == {0: 3}
    (first,) = job.record.phases
    assert first.name == "performance"
    with Job(run_dir, 1, attempt=1) as again:
        assert again.wait()[0] in (0, 1), again.output(0)
    assert [phase.name for phase in again.record.phases] == ["performance", "performance-2"]
    assert again.record.phases[0] == first


def test_repeats_change_the_duration_and_not_the_digest() -> None:
    one, three = plan_of("replay"), msgspec.structs.replace(plan_of("replay"), repeat=3)
    assert one.digest() == three.digest()
    assert [test.name for test in three.tests][:4] == [
        "performance",
        "performance-2",
        "performance-3",
        "accuracy",
    ]
    few, many = (plan_of("llama3.1-8b", site="jw", repeat=count) for count in (1, 2))
    assert few.slurm is not None and many.slurm is not None
    assert many.slurm.time_min > few.slurm.time_min


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--mode", "accuracy"), "--mode accuracy cannot be repeated"),
        (("--repeat", "0"), "--repeat"),
    ],
)
def test_refuses_what_cannot_be_repeated(
    tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    run = submit(tmp_path, "--config", "replay", "--repeat", "2", *arguments)
    assert run.returncode == 2 and text in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "runs").exists()


# Records.


def with_rates(*tokens_per_s: float) -> list[PhaseRecord]:
    """Finished performance tests with these rates."""
    found = []
    for place, rate in enumerate(tokens_per_s, start=1):
        phase = performance(smallest_valid())
        values = phase.loadgen | {"result_completed_tokens_per_second": rate}
        name = "performance" if place == 1 else f"performance-{place}"
        found.append(msgspec.structs.replace(phase, name=name, loadgen=values))
    return found


def test_the_interval_is_students() -> None:
    phases = with_rates(100.0, 110.0, 120.0)
    rate = next(each for each in repeats.figures(phases) if each.name == "throughput")
    assert rate.values == [100, 110, 120] and rate.mean == 110 and rate.deviation == 10
    assert rate.half_width == pytest.approx(4.3027 * 10 / 3**0.5, rel=1e-4)


def test_an_interval_that_contains_0_is_left_out() -> None:
    phases = with_rates(100.0, 900.0)
    rate = next(each for each in repeats.figures(phases) if each.name == "throughput")
    assert rate.mean == 500 and rate.half_width is None
    text = "\n".join(repeats.lines(completed(*phases)))
    assert "throughput 500 tokens/s, no interval: the tests differ too much" in text
    assert "no interval" in render(completed(*phases)) and "-4,6" not in text


def test_the_summary_names_an_invalid_repeat(tmp_path: Path) -> None:
    one, other = with_rates(100.0, 110.0)
    verdict = msgspec.structs.replace(other.verdict, verdict="INVALID")
    record = completed(one, msgspec.structs.replace(other, verdict=verdict), verdict="INVALID")
    text = summary(record, RunDir(tmp_path))
    assert "  test      performance-2: INVALID" in text
    assert "1 of 2 performance tests VALID" in text
    assert repeats.lines(completed(one)) == []
    assert "## Repeats" not in render(completed(one))


def test_a_history_is_compared_by_the_means_of_its_runs() -> None:
    earlier = [
        Run(name=f"run-{place}", record=completed(*with_rates(80.0 + place, 120.0 + place)))
        for place in range(4)
    ]
    after = Run(name="after", record=completed(*with_rates(120.0, 82.0)))
    found = comparison.compare_with_history(after, earlier, 0.02)
    rate = next(each for each in found.differences if each.figure == "throughput")
    assert rate.before == pytest.approx(99.5, rel=0.005) and rate.word == "within noise"


def test_repeats_are_noise_for_a_comparison() -> None:
    before = Run(name="before", record=completed(*with_rates(100.0, 101.0, 99.0)))
    near = Run(name="near", record=completed(*with_rates(100.5, 101.5, 99.5)))
    far = Run(name="far", record=completed(*with_rates(120.0, 121.0, 119.0)))

    def throughput(after: Run) -> comparison.Difference:
        found = comparison.compare(before, after, [], 0.02)
        assert found.noise == "between 6 tests of the same plans"
        return next(each for each in found.differences if each.figure == "throughput")

    assert throughput(near).word == "within noise"
    better = throughput(far)
    assert better.word == "better" and better.before == pytest.approx(100, rel=1e-3)
    assert better.low is not None and 0.1 < better.low < 0.2
