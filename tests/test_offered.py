"""``target_qps: auto``: the run measures its engines, simulates itself, and chooses its load."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import msgspec
import pytest
from cli import latest, set_arguments, submit
from jobs import Job, plan_for, write_plan
from loadgen_logs import smallest_valid
from plans import plan_of
from records import completed, performance, render
from replay import served
from rich.console import Console

from sut.errors import InputError, RunError
from sut.plan import duration
from sut.plan import plan as plans
from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.report.summary import summary
from sut.results import sameness
from sut.results.offered import Batch, OfferedLoad
from sut.results.peak import Peak, Tried
from sut.results.progress import Progress
from sut.results.service import ServiceTimes
from sut.run.measure_load import batch_of, require_time
from sut.rundir import RunDir
from sut.watch.frame import frame
from sut.watch.observer import Observer
from sut.watch.state import PhaseState, left_s

AUTO = "scenarios.server.target_qps=auto"
# 4 at once take 1 s each, 32 take 2 s.
SMALL = Batch(in_flight=4, num_samples=12, samples_per_s=4.0, ttft_ms=100.0, tpot_ms=50.0)
FULL = Batch(in_flight=32, num_samples=96, samples_per_s=16.0, ttft_ms=800.0, tpot_ms=190.0)


def test_the_rate_counts_completions_while_all_places_are_taken() -> None:
    # Two places; every sample takes 1 s, its first token 0.25 s. The last wave has no successor.
    starts = [0, 0, 1, 1, 2, 2]
    columns = {
        "admitted_ns": [s * 10**9 for s in starts],
        "first_token_ns": [s * 10**9 + 250_000_000 for s in starts],
        "completed_ns": [(s + 1) * 10**9 for s in starts],
        "output_tokens": [4] * 6,
    }
    batch = batch_of(columns, in_flight=2)
    assert batch.samples_per_s == pytest.approx(2.0)
    assert (batch.ttft_ms, batch.tpot_ms) == (pytest.approx(250), pytest.approx(250))
    one_wave = {name: values[:2] for name, values in columns.items()}
    assert batch_of(one_wave, in_flight=2).samples_per_s == pytest.approx(2.0)


def test_ttft_leaves_out_the_first_wave() -> None:
    # All prompts of the first wave arrive at once and wait for each other.
    columns = {
        "admitted_ns": [0, 0, 10**9, 2 * 10**9],
        "first_token_ns": [9 * 10**8, 9 * 10**8, 1_100_000_000, 2_100_000_000],
        "completed_ns": [10**9, 2 * 10**9, 3 * 10**9, 3 * 10**9],
        "output_tokens": [1] * 4,
    }
    assert batch_of(columns, in_flight=2).ttft_ms == pytest.approx(100)


def test_credit_keeps_a_constant_number_in_flight() -> None:
    with served(4, 1, "--step-base-us", "1000") as dispatcher:
        dispatcher.set_credit(0, 3)
        dispatcher.reset_stats()
        dispatcher.generate([i % 4 for i in range(30)], -1, 30.0)
        columns = dispatcher.samples()
    events = sorted(
        [(t, 1) for t in columns["admitted_ns"]] + [(t, -1) for t in columns["completed_ns"]]
    )
    in_flight = most = 0
    for _, change in events:
        in_flight += change
        most = max(most, in_flight)
    assert most == 3 and batch_of(columns, 3).num_samples == 30


# The plan.


def test_auto_stays_in_the_plan_and_its_digest() -> None:
    plan = plan_of("replay", sets=(AUTO,))
    assert plan.measures_load and plan.loadgen_settings.target_qps == "auto"
    assert plan.digest() == plan_of("replay", sets=(AUTO,)).digest()
    assert "# replay.Server.target_qps = measured by the run" in plan.user_conf()
    assert plan.user_conf(12.5).startswith("replay.Server.target_qps = 12.5\n")
    given = plan_of("replay")
    assert not given.measures_load and "target_qps = 60\n" in given.user_conf(12.5)


def test_auto_is_a_submitters_choice() -> None:
    free = plan_of("replay", sets=(AUTO,)).not_official_because
    assert free == plan_of("replay").not_official_because


def test_the_embedded_benchmark_measures_its_load_by_default() -> None:
    for scenario in (Scenario.SERVER, Scenario.INTERACTIVE):
        assert plan_of("smollm2-135m-news", scenario).measures_load
        change = (f"scenarios.{scenario}.target_qps=5",)
        given = plan_of("smollm2-135m-news", scenario, sets=change)
        assert given.loadgen_settings.target_qps == 5
    one_core = plan_of("smollm2-135m-news", site="devcluster", nodes="jw2")
    assert one_core.loadgen_settings.target_qps == 2  # the site's


def test_singlestream_has_no_load_to_measure() -> None:
    change = "scenarios.singlestream.target_qps=auto"
    with pytest.raises(InputError, match="is auto, but singlestream always has one query") as error:
        plan_of("replay", Scenario.SINGLE_STREAM, sets=(change,))
    hint = "hint: remove target_qps: --set scenarios.singlestream.target_qps=null"
    assert str(error.value).endswith(hint)


def test_names_both_forms_of_the_key() -> None:
    with pytest.raises(InputError, match=r"'fast' is neither of type number nor auto"):
        plan_of("replay", sets=("scenarios.server.target_qps=fast",))
    with pytest.raises(InputError) as error:
        plan_of("replay", sets=("scenarios.server.target_qps=-1",))
    assert "-1 is not greater than 0" in str(error.value) and "auto" not in str(error.value)


def test_a_dry_run_says_that_the_load_will_be_measured(tmp_path: Path) -> None:
    run = submit(tmp_path, "--config", "replay", "--dry-run", *set_arguments([AUTO]))
    assert run.returncode == 0, run.stderr
    assert "auto: chosen by a simulation of the run with step times from" in run.stdout
    assert "about 8 min measuring (auto counted as 1 query/s)" in run.stdout


def test_the_wall_limit_suffices_for_a_low_load() -> None:
    sets = ("site.target_qps={}", AUTO)
    slurm = plan_of("smollm2-135m-news", site="devcluster", nodes="jw2", sets=sets).slurm
    given = plan_of("smollm2-135m-news", site="devcluster", nodes="jw2").slurm
    assert slurm is not None and given is not None and slurm.time_min > given.time_min
    with pytest.raises(InputError, match="auto is planned with 1 query/s"):
        plan_of(
            "smollm2-135m-news",
            site="devcluster",
            nodes="jw2",
            sets=(*sets, "site.slurm.time_min=5"),
        )


LOAD = OfferedLoad(
    target_qps=9.6,
    full=FULL,
    small=SMALL,
    reason="60% of the simulated peak of 16 queries/s",
    service=ServiceTimes(
        base_us=30_000,
        per_sequence_us=1000,
        per_prefill_token_us=900,
        per_context_token_us=0,
        noise=0.05,
        num_steps=120,
    ),
    peak=Peak(
        target_qps=16.0,
        limit="TTFT",
        tried=(
            Tried(
                target_qps=16.0,
                num_samples=470,
                num_allowed=0,
                num_ttft_over=0,
                num_tpot_over=0,
                ttft_p99_ms=4321.0,
                tpot_p99_ms=210.0,
            ),
            Tried(
                target_qps=16.1,
                num_samples=470,
                num_allowed=0,
                num_ttft_over=1,
                num_tpot_over=0,
            ),
        ),
    ),
    slowdown=1.5,
)


def test_refuses_a_run_that_the_wall_limit_would_interrupt() -> None:
    sets = ("site.target_qps={}",)
    plan = plan_of("smollm2-135m-news", site="devcluster", nodes="jw2", sets=sets)
    assert plan.slurm is not None
    require_time(plan, LOAD, [plans.Test(Mode.PERFORMANCE)], 0.0)
    slow = msgspec.structs.replace(LOAD, target_qps=0.1)
    with pytest.raises(RunError, match=r"0.1 queries/s, the run takes about 78.3 minutes") as error:
        require_time(plan, slow, [plans.Test(Mode.PERFORMANCE)], 0.0)
    assert "--set site.slurm.time_min=" in str(error.value)
    require_time(
        msgspec.structs.replace(plan, slurm=None), slow, [plans.Test(Mode.PERFORMANCE)], 0.0
    )


def test_the_remaining_time_uses_the_chosen_load() -> None:
    plan = plan_of("replay", sets=(AUTO,))
    waiting = (PhaseState(name="performance", state="waiting"),)
    least = plan.loadgen_settings.min_query_count
    assert least is not None
    assert left_s(plan, waiting) == pytest.approx(least / duration.ASSUMED_QPS)
    assert left_s(plan, waiting, 10.0) == pytest.approx(least / 10, abs=0.1)


def test_watching_shows_the_load_once_it_is_chosen(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, AUTO), tmp_path / "run")
    progress = Progress(run_dir.progress)
    observer = Observer(run_dir)
    assert observer.look().target_qps is None
    progress.step(f"offering {LOAD.text}", target_qps=LOAD.target_qps)
    progress.step("performance")
    state = observer.look()
    assert state.target_qps == 9.6
    shown = io.StringIO()
    Console(file=shown, width=100).print(frame(state))
    assert "replay, server, smoke preset, 9.6 queries/s" in shown.getvalue()
    fixed = write_plan(plan_for(1), tmp_path / "fixed")
    assert Observer(fixed).look().target_qps == 800


# Runs.

# Limits that a machine under other work meets.
ROOM = ("scenarios.server.ttft_latency_ms=5000", "scenarios.server.tpot_latency_ms=500")


def test_a_run_measures_its_load_and_reports_it(tmp_path: Path) -> None:
    run = submit(tmp_path, "--config", "replay", *set_arguments([AUTO, *ROOM]))
    assert run.returncode == 0, run.stdout + run.stderr
    record = latest(tmp_path)
    load = record.load
    assert record.verdict == "VALID" and load is not None
    assert load.full.in_flight == 64 and load.small.in_flight == 8
    assert load.full.samples_per_s > load.small.samples_per_s
    assert load.service is not None and load.service.base_us > 0
    assert load.peak is not None and load.slowed is not None
    assert load.slowed.target_qps <= load.peak.target_qps
    assert "of the simulated peak of" in load.text
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert run_dir.user_conf.read_text() == record.plan.user_conf(load.target_qps)
    assert record.user_conf == record.plan.user_conf(load.target_qps)
    (phase,) = record.phases
    assert phase.loadgen["effective_target_qps"] == pytest.approx(load.target_qps)
    assert f"load      {load.text}" in run.stdout
    assert load.text in run_dir.report.read_text()
    assert f"offering {load.text}" in run_dir.progress.read_text()
    assert "measure the load" in [step.name for step in record.timings]


def test_few_steps_of_a_slow_engine_give_a_careful_load(tmp_path: Path) -> None:
    """The test has limits on tokens, but there is too little to simulate from."""
    slow = ("engine.replay.step_base_us=400000", "generation.max_tokens=2")
    sets = (AUTO, *slow, "generation.min_tokens=1", "scenarios.server.min_query_count=2")
    submit(tmp_path, "--config", "replay", "--preset", "quick", *set_arguments(sets))
    load = latest(tmp_path).load
    assert load is not None and load.service is None and load.peak is None
    assert load.reason.endswith("with 8 at once; too few steps for a simulation"), load.reason


def test_two_replicas_are_measured_together(tmp_path: Path) -> None:
    sets = [AUTO, *ROOM, "site.num_replicas=2", "site.cpu.cpus=[0, 1]"]
    run = submit(tmp_path, "--config", "replay", *set_arguments(sets))
    assert run.returncode == 0, run.stdout + run.stderr
    record = latest(tmp_path)
    assert record.load is not None and record.load.full.in_flight == 128
    assert all(work.samples > 0 for work in record.phases[0].replicas)


def test_a_requeued_run_keeps_its_load(tmp_path: Path) -> None:
    some_seconds = ("engine.replay.step_base_us=2000", "engine.max_num_seqs=16")
    plan = plan_for(2, AUTO, *some_seconds, mode=Mode.ALL)
    run_dir = write_plan(plan, tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring("accuracy")
        job.signal(1, signal.SIGKILL)
        assert job.wait(20)[0] == 3
    load = job.record.load
    assert load is not None
    with Job(run_dir, 2, attempt=1) as again:
        assert again.wait() == {0: 0, 1: 0}, again.output(0)
    assert again.record.load == load
    steps = [line.step for line in again.lines()]
    assert steps.count(f"offering {load.text}") == 2
    assert sum(step.startswith("measuring the load: a full") for step in steps) == 1


def test_a_slow_measurement_ends_with_a_hint(tmp_path: Path) -> None:
    sets = [AUTO, "engine.max_num_seqs=8", "engine.replay.faults=[stall@24]"]
    sets += ["site.timeouts.warmup_s=2"]
    run = submit(tmp_path, "--config", "replay", *set_arguments(sets))
    assert run.returncode == 3
    failure = latest(tmp_path).failure
    assert failure is not None and failure.code == "measure_load"
    assert "--set scenarios.server.target_qps=N" in failure.message


# Records.


def test_reports_show_what_was_measured_and_chosen(tmp_path: Path) -> None:
    record = completed(performance(smallest_valid()), load=LOAD)
    assert f"  load      {LOAD.text}" in summary(record, RunDir(tmp_path))
    text = render(record)
    assert "## Load" in text and LOAD.text in text
    assert "| full | 32 | 96 | 16 | 800 | 190 |" in text
    assert "| small | 4 | 12 | 4 | 100 | 50 |" in text
    assert "A step takes 30 ms, and 1,000 us more for each decoding sequence" in text
    assert "| 16 | VALID | 4,321 | 210 | 0 | 0 | 0 |" in text
    assert "| 16.1 | INVALID | - | - | 1 | 0 | 0 |" in text
    assert "## Load" not in render(completed(performance(smallest_valid())))


def test_a_comparison_names_loads_that_differ() -> None:
    phase = performance(smallest_valid())
    other = msgspec.structs.replace(LOAD, target_qps=5.0)
    one, two = (sameness.of_record(completed(phase, load=load)) for load in (LOAD, other))
    assert list(map(str, sameness.mismatches(one, two))) == ["load.target_qps: 9.6 -> 5.0"]
