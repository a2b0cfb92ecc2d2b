"""Runs with real vLLM engines and the embedded model, on the CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cli import environment, latest, processes_of, set_arguments, submit, until
from plans import plan_of
from vllms_answers import answers

from sut.cluster.allocation import Allocation
from sut.inputs import dataset, model
from sut.inputs.cache import cache_dir
from sut.plan import plan as plans
from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode, Plan
from sut.results import diagnosis
from sut.results.measured import record_phase
from sut.results.progress import Progress
from sut.run.phase import run_phase
from sut.run.replicas import Replicas
from sut.run.serving import Serving
from sut.rundir import RunDir
from sut.serving import wire
from sut.serving.nodes import Nodes

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

BENCHMARK = "smollm2-135m-news"
EXACT = ["engine.dtype=float32"]  # an answer does not depend on its batch
NUM_ARTICLES = 50
OF_ENGINES = {
    *("prefix_caching", "speculative_decoding", "kv_transfer", "engine_settings"),
    *("cached_tokens", "draft_tokens", "engine_statistics"),
}
# Fewer queries than a VALID run needs.
FEW = [
    f"scenarios.{scenario}.{key}"
    for scenario in ("interactive", "offline", "singlestream")
    for key in ("min_duration_ms=1000", "min_query_count=12", "accuracy_sample_count=12")
] + ["scenarios.offline.target_qps=10", "scenarios.interactive.target_qps=5"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(BENCHMARK, sets=EXACT)


@pytest.fixture(scope="module")
def model_path(plan: Plan) -> Path:
    return model.locate(plan.model)


@pytest.fixture(scope="module")
def expected(
    plan: Plan, model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[list[int]]:
    folder = tmp_path_factory.mktemp("reference")
    return answers(plan, model_path, NUM_ARTICLES, folder)


@pytest.fixture(scope="module")
def serving(
    expected: list[list[int]],  # computed first: it needs the cores
    plan: Plan,
    model_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Serving]:
    run_dir = RunDir(tmp_path_factory.mktemp("run"))
    run_dir.logs.mkdir()
    prompts = dataset.load(plan, model_path).prompts
    with (
        Nodes(plan, run_dir, Allocation()) as nodes,
        Serving(nodes, model_path) as served,
    ):
        progress = Progress(run_dir.progress)
        served.start(progress)
        served.connect(prompts, (), progress)
        served.load(progress)
        served.warm_up()
        yield served


@pytest.fixture
def replicas(serving: Serving) -> Replicas:
    return serving.replicas


def test_greedy_tokens_equal_vllms_own(
    replicas: Replicas, expected: list[list[int]], plan: Plan
) -> None:
    assert plan.engine.dtype == "float32"
    ours = [replicas.dispatcher.generate([i], 0, 60.0)[0] for i in range(NUM_ARTICLES)]
    assert ours == expected


@pytest.mark.parametrize("mode", [Mode.PERFORMANCE, Mode.ACCURACY])
@pytest.mark.parametrize(
    "scenario", [Scenario.OFFLINE, Scenario.SINGLE_STREAM, Scenario.INTERACTIVE]
)
def test_every_scenario_runs_without_a_loadgen_error(
    serving: Serving, model_path: Path, tmp_path: Path, scenario: Scenario, mode: Mode
) -> None:
    replicas = serving.replicas
    plan = replicas.plan = plan_of(BENCHMARK, scenario, sets=[*EXACT, *FEW])
    run_dir = RunDir(tmp_path)
    samples = dataset.load(plan, model_path)
    test, progress = plans.Test(mode), Progress(run_dir.progress)
    measured = run_phase(test, replicas, run_dir, progress)
    stats = measured.stats
    assert stats.completed == stats.issued >= 12 and stats.failed == 0
    phase = record_phase(
        test, plan, run_dir, samples, measured, model_path, ["localhost"], None, serving.reports
    )
    met = {check.code for check in phase.verdict.checks if check.met}
    assert met >= OF_ENGINES and phase.replicas[0].shortcuts.num_prefills == stats.completed
    assert phase.loadgen_errors == ()
    assert phase.accuracy is None or phase.accuracy["rouge1"] > 5


def test_one_process_is_the_engine(replicas: Replicas) -> None:
    (engine,) = processes_of(replicas.nodes.run_dir.root)
    pid, _, name = engine.partition(": ")
    assert "EngineCore" in name
    threads = Path(f"/proc/{pid}/task")
    cores = {
        thread.name: re.search(
            r"^Cpus_allowed_list:\s*(\S+)", (thread / "status").read_text(), re.MULTILINE
        )[1]
        for thread in threads.iterdir()
    }
    # OpenMP's second thread is bound. The core's thread and those of its two sockets are not.
    assert cores[pid] == "0-1" and "1" in cores.values()
    assert sum(each == "0-1" for each in cores.values()) >= 3


def test_the_longest_frame_of_outputs_is_within_its_bound(plan: Plan) -> None:
    from vllm.v1.engine import (
        EngineCoreEvent,
        EngineCoreEventType,
        EngineCoreOutput,
        EngineCoreOutputs,
        FinishReason,
    )
    from vllm.v1.metrics.stats import PrefillStats, SchedulerStats
    from vllm.v1.serial_utils import MsgpackEncoder

    each = EngineCoreOutput(
        request_id="f" * 16,
        new_token_ids=[2**31 - 1] * 200,  # a step has one
        finish_reason=FinishReason.LENGTH,
        events=[EngineCoreEvent.new_event(EngineCoreEventType.PREEMPTED)] * 20,
        prefill_stats=PrefillStats(*[2**31] * 6),
        num_nans_in_logits=2**31,
    )
    outputs = EngineCoreOutputs(
        outputs=[each] * plan.engine.max_num_seqs, scheduler_stats=SchedulerStats()
    )
    frame, *_ = MsgpackEncoder().encode(outputs)
    assert len(frame) < wire.max_output_bytes(plan) - wire.FRAME_BYTES


def test_a_request_has_stop_ids_and_our_settings(plan: Plan, model_path: Path) -> None:
    ((request, id_offset),) = wire.encode(plan, [[11, 12, 13]], model_path).requests
    assert request[id_offset : id_offset + 16] == wire.PLACEHOLDER_ID.encode()
    fields = msgspec.msgpack.decode(request)
    assert fields[:3] == [wire.PLACEHOLDER_ID, [11, 12, 13], None]
    settings = fields[3]
    # vLLM leaves defaults out, and its default is 16.
    assert settings.get("max_tokens", 16) == plan.generation.max_tokens
    assert settings["min_tokens"] == plan.generation.min_tokens
    assert settings["temperature"] == 0 and settings["detokenize"] is False
    eos = json.loads((model_path / "config.json").read_text())["eos_token_id"]
    assert settings["_eos_token_id"] == eos and eos in settings["_all_stop_token_ids"]


def test_a_server_run_with_a_model_is_valid(tmp_path: Path) -> None:
    # A fifth of what two idle cores take, and limits beyond what other work can cost.
    limits = ("ttft_latency_ms=120000", "tpot_latency_ms=10000")
    load = set_arguments([f"scenarios.server.{each}" for each in ("target_qps=10", *limits)])
    run = submit(tmp_path, "--scenario", "server", *load, timeout_s=500)
    assert run.returncode == 0, run.stdout + run.stderr
    record = latest(tmp_path)
    (phase,) = record.phases
    assert record.verdict == "VALID" and phase.loadgen_errors == ()
    assert record.hashes.model and record.hashes.data
    assert processes_of((tmp_path / "runs/latest").resolve()) == []
    log = (tmp_path / "runs/latest/logs/replica-0.log").read_text()
    assert "received signal=SIGTERM" in log and "exiting busy loop" in log


def test_an_error_of_vllm_is_known(tmp_path: Path) -> None:
    more = ("--set", "site.cpu.kv_cache_gib=100000")
    run = submit(tmp_path, "--scenario", "server", "--preset", "quick", *more, timeout_s=300)
    known = diagnosis.known_failures()["cpu_memory"]
    assert run.returncode == 3 and f"replica 0 exited with code 1: {known.cause}\n" in run.stdout
    assert "(100000.0 GiB)" in run.stdout and f"hint      {known.remedy}\n" in run.stdout


def test_a_killed_engine_core_ends_the_run(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "sut.submit", "--scenario", "server"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        core = _core_at_work(tmp_path)
        os.kill(core, signal.SIGKILL)
        stdout, _ = run.communicate(timeout=60)
    finally:
        run.terminate()
    record = latest(tmp_path)
    assert run.returncode == 3 and record.status == "failed" and "FAILED" in stdout
    assert record.failure is not None and record.failure.replica == 0
    assert "replica 0 was killed by signal 9" in record.failure.message
    assert processes_of((tmp_path / "runs/latest").resolve()) == []


def test_a_kept_engine_serves_the_next_run(tmp_path: Path) -> None:
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"), SUT_CACHE=str(cache_dir()))
    few = ["scenarios.server.target_qps=5", "scenarios.server.accuracy_sample_count=12"]
    options = ["--preset", "quick", *set_arguments(few), "--keep-engine", "5"]
    records = []
    try:
        for mode in ("performance", "accuracy"):
            run = submit(tmp_path, *options, "--mode", mode, timeout_s=250, env=env)
            records.append(latest(tmp_path))
            assert records[-1].status == "completed", run.stdout + run.stderr
    finally:
        stop = [sys.executable, "-m", "sut.engines", "stop", "--all"]
        subprocess.run(stop, env=env, check=True, timeout=60)
    origins = [record.engines.replicas[0] for record in records if record.engines is not None]
    assert [each.warm for each in origins] == [False, True]
    assert origins[1].started_utc == origins[0].started_utc and origins[1].earlier_runs == 1
    (phase,) = records[1].phases
    assert phase.loadgen_errors == () and phase.num_scored
    assert phase.accuracy is not None and phase.accuracy["rouge1"] > 5
    until(lambda: processes_of(tmp_path) == [])


def _core_at_work(cwd: Path) -> int:
    """The engine core's process id, after it has answered a query."""
    deadline = time.monotonic() + 300
    progress = cwd / "runs" / "latest" / "progress.jsonl"
    while not (progress.is_file() and '"completed":' in progress.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    found = processes_of((cwd / "runs" / "latest").resolve())
    (core,) = [line for line in found if "EngineCore" in line]
    return int(core.partition(":")[0])


def test_a_run_is_judged_by_what_vllm_made_of_its_arguments(tmp_path: Path) -> None:
    guess = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    guess["prompt_lookup_min"] = 1
    extra = ["--enable-prefix-caching", "--block-size=32", "--max-logprobs=5"]
    extra += ["--speculative-config", json.dumps(guess)]
    # The warm-up has every prompt before LoadGen asks for it.
    sets = [f"engine.extra_args={json.dumps(extra)}", *EXACT, *FEW]
    sets += ["dataset.num_samples=16", "dataset.max_prompt_tokens=100"]
    sets += ["scenarios.offline.performance_sample_count=16"]
    done = submit(
        tmp_path,
        *("--config", BENCHMARK, "--scenario", "offline", "--preset", "smoke"),
        *set_arguments(sets),
        timeout_s=600,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (phase,) = latest(tmp_path).phases
    reasons = {reason.code for reason in phase.verdict.reasons}
    used = {"prefix_caching", "cached_tokens", "speculative_decoding", "draft_tokens"}
    assert OF_ENGINES & reasons == used
    counted = phase.replicas[0].shortcuts
    assert counted.cached_tokens == counted.cache_hits > 0 and counted.draft_tokens > 0
    (report,) = phase.engines
    assert report.engine.startswith("vllm 0.32.0")
    assert report.settings["model_config.dtype"] == "float32"
    assert report.settings["speculative_config.method"] == "ngram"
    assert report.changed is not None
    assert report.changed["cache_config.enable_prefix_caching"] is False
    because = latest(tmp_path).not_official_because
    unknown = [reason for reason in because if reason.startswith("no rule knows")]
    assert unknown == [
        "no rule knows the engine's setting model_config.max_logprobs: 5, 20 by default"
    ]
