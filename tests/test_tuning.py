"""The search for the highest VALID load."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import msgspec
import pytest
from cli import latest, set_arguments, submit
from jobs import Job, plan_for, write_plan
from plans import plan_of
from test_offered import LOAD

from sut import _core
from sut.errors import InputError
from sut.launch.request import RunRequest, make_plan
from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.results import attempts, peak, service, tuning
from sut.results.peak import Limits, Peak
from sut.results.service import ServiceTimes
from sut.results.steps import EngineStep
from sut.results.tuning import MAX_TRIALS, State, Trial, Tuning
from sut.run.simulator import Simulator, service_model
from sut.rundir import RunDir

LIMITS = Limits(ttft_ms=500, tpot_ms=50)
TRUTH = ServiceTimes(
    base_us=12_000,
    per_sequence_us=150,
    per_prefill_token_us=20,
    per_context_token_us=0.3,
    noise=0.05,
)


def trial(qps: float, verdict: str = "INVALID") -> Trial:
    return Trial(target_qps=qps, verdict=verdict, duration_s=10.0)


def test_the_first_trial_is_just_below_the_peak() -> None:
    found = Peak(target_qps=100.0, limit="TTFT", tried=())
    assert tuning.next_load(found, ()) == pytest.approx(98.5)


def test_an_invalid_trial_lowers_the_next_load() -> None:
    higher = Peak(target_qps=120.0, limit="TTFT", tried=())
    lower = Peak(target_qps=50.0, limit="TTFT", tried=())
    failed = (trial(98.5), trial(90.0))
    assert tuning.next_load(higher, failed) == pytest.approx(0.98 * 90)
    assert tuning.next_load(lower, failed) == pytest.approx(0.985 * 50)


def test_the_search_ends_with_a_valid_trial_or_the_last() -> None:
    assert not tuning.is_over(())
    assert not tuning.is_over((trial(9),))
    assert tuning.is_over((trial(9), trial(8, "VALID")))
    assert tuning.is_over(tuple(trial(9 - n) for n in range(MAX_TRIALS)))


def test_probes_are_shorter_for_short_runs() -> None:
    assert tuning.probe_s(1.0) == tuning.SHORTEST_PROBE_S
    assert tuning.probe_s(80.0) == 10.0 and tuning.probe_s(4000.0) == 90.0


def test_the_state_survives_a_requeue(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    assert tuning.read(path) is None
    state = State(
        tuning=Tuning(limits=LIMITS, service=TRUTH, trials=(trial(9.0),)),
        load=LOAD,
        steps=(EngineStep(1000.5, 3, 40, 900),),
        output_tokens=(8, 7),
    )
    tuning.write(path, state)
    assert tuning.read(path) == state
    path.write_text("{")
    assert tuning.read(path) is None


# The method, on a simulated engine whose step times are known.


def simulator() -> Simulator:
    plan = plan_of("replay", sets=("scenarios.server.target_qps=auto",))
    source = random.Random(3)
    prompts = [source.randint(64, 512) for _ in range(plan.dataset.num_samples)]
    return Simulator(plan, LIMITS, prompts, [64] * plan.dataset.num_samples)


def measured(count: int, seed: int) -> list[EngineStep]:
    """Steps of the true engine, under changing load."""
    source = random.Random(seed)
    found = []
    for _ in range(count):
        decoding = source.randint(4, 64)
        prompts = source.choice([0, 0, 1, 2])
        work = EngineStep(0.0, decoding, 288 * prompts, 320 * decoding)
        noise = source.lognormvariate(0, TRUTH.noise)
        found.append(work._replace(duration_us=TRUTH.step_us(work) * noise))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_finds_the_peak_of_a_known_engine_within_two_percent(seed: int) -> None:
    run = simulator()
    times = service.fit(measured(1500, seed))
    assert times is not None
    true = peak.find(lambda qps: run.attempt(qps, TRUTH), 60.0)
    found = peak.find(lambda qps: run.attempt(qps, times), 20.0)
    assert found.target_qps == pytest.approx(true.target_qps, rel=0.02)
    assert found.limit == true.limit
    assert found.at_peak is not None and found.at_peak.mean_in_flight > 1


def test_simulated_steps_have_the_fitted_mean() -> None:
    noisy = msgspec.structs.replace(TRUTH, noise=0.3)
    found = _core.simulate(
        schedule=_core.Schedule(arrival_ns=[0] * 400, sample_index=list(range(400))),
        prompt_tokens=[100] * 400,
        output_tokens=[64] * 400,
        service=service_model(noisy),
        num_replicas=1,
        max_num_seqs=16,
        max_num_batched_tokens=512,
        max_model_len=1024,
        log_steps=True,
    ).steps()
    names = ("num_decoding", "num_prefill_tokens", "context_tokens")
    works = zip(*(found[name] for name in names), strict=True)
    fitted_us = sum(TRUTH.step_us(EngineStep(0.0, *work)) for work in works)
    assert sum(found["duration_ns"]) / 1e3 == pytest.approx(fitted_us, rel=0.02)


def test_a_slower_engine_has_a_lower_peak() -> None:
    run = simulator()
    peaks = [
        peak.find(lambda qps, s=slow: run.attempt(qps, TRUTH, s), 60.0).target_qps  # type: ignore[misc]
        for slow in (1.0, 1.5, 2.5)
    ]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > 1.3 * peaks[1]


# The command.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": Scenario.SINGLE_STREAM}, "one query at a time"),
        ({"mode": Mode.ACCURACY}, "no performance test"),
        ({"sets": ("target_qps=5",)}, "searches for target_qps"),
    ],
)
def test_refuses_what_has_no_load_to_find(changes: dict[str, object], message: str) -> None:
    asked = msgspec.structs.replace(RunRequest(benchmark="replay", tune=True), **changes)
    with pytest.raises(InputError, match=message) as error:
        make_plan(asked)
    assert "python -m sut.submit" in str(error.value)


def test_a_tuned_plan_ends_hopeless_trials() -> None:
    plan, *_ = make_plan(RunRequest(benchmark="replay", tune=True))
    assert plan.tune and plan.measures_load and plan.ends_when_hopeless
    again = msgspec.structs.replace(plan, stop_when_hopeless=False)  # as --again makes it
    assert again.ends_when_hopeless
    assert not msgspec.structs.replace(again, tune=False).ends_when_hopeless


def test_a_dry_run_names_the_search(tmp_path: Path) -> None:
    run = submit(tmp_path, "--config", "replay", "--dry-run", command="tune")
    assert run.returncode == 0, run.stderr
    assert "the highest at which the run is VALID; the run searches for it" in run.stdout


def test_again_is_submits(tmp_path: Path) -> None:
    run = submit(tmp_path, "--again", "latest", command="tune")
    assert run.returncode == 2 and "python -m sut.submit --again latest" in run.stderr


def test_a_requeued_run_continues_its_search(tmp_path: Path) -> None:
    """Twelve seconds, as the next one."""
    sets = ["target_qps=auto", "ttft_latency_ms=500", "tpot_latency_ms=50", "min_duration_ms=1500"]
    plan = plan_for(
        1,
        *[f"scenarios.server.{each}" for each in sets],
        "engine.replay.step_base_us=4000",
        tune=True,
    )
    run_dir = write_plan(plan, tmp_path / "run")
    with Job(run_dir, 1) as job:
        job.until_measuring()
        job.signal(0, signal.SIGKILL)
        job.wait(20)
    before = tuning.read(run_dir.tuning)
    assert before is not None and before.tuning.peak is not None
    with Job(run_dir, 1, attempt=1) as again:
        assert again.wait()[0] in (0, 1), again.output(0)
    found = again.record.tuning
    assert found is not None and found.probes == before.tuning.probes and found.trials
    steps = [line.step for line in again.lines()]
    assert sum(step.startswith("tuning: measuring a small") for step in steps) == 1


def test_a_requeued_search_keeps_the_folders_of_its_trials(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    for folder in (run_dir.trial(1), run_dir.trial(2), run_dir.loadgen(Mode.PERFORMANCE)):
        folder.mkdir(parents=True)
    attempts.set_aside(run_dir, attempts.Earlier())
    kept = sorted(folder.name for folder in run_dir.loadgen_root.iterdir())
    assert kept == ["performance.interrupted-1", "trial-1", "trial-2"]


def test_tunes_on_running_engines(tmp_path: Path) -> None:
    """Twelve seconds: LoadGen's early stopping needs 459 queries for a VALID trial. Which trial is
    VALID depends on the machine."""
    sets = ["engine.replay.step_base_us=4000", "presets.smoke.server.min_duration_ms=1000"]
    run = submit(tmp_path, "--config", "replay", *set_arguments(sets), command="tune")
    record = latest(tmp_path)
    found = record.tuning
    assert record.failure is None and found is not None and record.load is not None
    assert [probe.name for probe in found.probes] == [
        "small batch",
        "full batch",
        "batch of the peak",
    ]
    assert found.service is not None and found.peak is not None
    *before, last = found.trials
    assert all(each.verdict == "INVALID" for each in before)
    loads = [each.target_qps for each in found.trials]
    assert loads == sorted(loads, reverse=True) and loads[-1] == record.load.target_qps
    assert last.verdict == record.verdict and run.returncode == (record.verdict != "VALID")
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert run_dir.loadgen("performance").is_dir()
    assert all(run_dir.loadgen(f"trial-{n + 1}").is_dir() for n in range(len(before)))
    assert f"tuning    {found.text}" in run.stdout
    assert "## Tuning" in run_dir.report.read_text()
    assert str(run_dir.tuning.name) in record.files
