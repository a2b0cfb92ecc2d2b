"""A run that continues with the replicas that are left (``--on-replica-loss continue``)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from cli import environment, processes_of, set_arguments, submit, until
from plans import plan_of
from replay import served

from sut.plan.plan import OnReplicaLoss
from sut.results import losses, record, sample_log
from sut.results.losses import ReplicaLoss
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir

CONTINUE = ("--on-replica-loss", "continue")
# Some seconds of load on two replicas; limits that any machine meets.
SETS = (
    "site.num_replicas=2",
    "site.timeouts.stall_s=4",
    "scenarios.server.target_qps=40",
    "scenarios.server.min_duration_ms=8000",
    "scenarios.server.ttft_latency_ms=60000",
    "scenarios.server.tpot_latency_ms=60000",
)


def engines_of(run_dir: RunDir) -> list[int]:
    """The process ids of the run's replay engines, by replica."""
    seeds = {}
    for line in processes_of(run_dir.root):
        if "replay_engine" in line:
            words = line.split()
            seeds[int(words[words.index("--seed") + 1])] = int(line.partition(":")[0])
    return [seeds[seed] for seed in sorted(seeds)]


@contextmanager
def measuring(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], RunDir]]:
    """A run whose performance test has completed samples."""
    command = [sys.executable, "-m", "sut.submit", "--config", "replay", "--scenario", "server"]
    process = subprocess.Popen(
        [*command, *set_arguments(SETS), *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        progress = folder / "runs" / "latest" / "progress.jsonl"
        until(lambda: progress.is_file() and '"completed":' in progress.read_text(), 60)
        yield process, RunDir((folder / "runs" / "latest").resolve())
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_finish_the_run(tmp_path: Path, by: signal.Signals) -> None:
    with measuring(tmp_path, *CONTINUE) as (process, run_dir):
        lost = engines_of(run_dir)[1]
        os.kill(lost, by)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    found = record.read(run_dir.record)
    assert found.status == "completed" and found.verdict == "INVALID", printed
    (phase,) = found.phases
    (loss,) = phase.losses
    assert loss.replica == 1 and loss.at_s > 0 and loss.samples_restarted > 0
    if by is signal.SIGKILL:
        assert (loss.code, loss.message) == ("engine_died", "replica 1 was killed by signal 9")
    else:
        assert loss.code == "stall"
    (reason,) = (each for each in phase.verdict.reasons if each.code == "lost_replicas")
    assert reason.measured == 1 and reason.remedy and reason.crossed_s == loss.at_s
    stats = phase.dispatcher
    assert stats is not None and stats.failed == 0 and stats.issued == stats.completed
    assert phase.loadgen["result_query_count"] == stats.completed
    samples = sample_log.read(run_dir.samples("performance"))
    assert samples is not None and len(samples) == stats.completed
    assert phase.survivors is not None and phase.survivors.samples > 0
    (log,) = run_dir.job.glob("*_log.out")
    assert log.read_text().count("The run continues without it.") == 1
    assert "**Degraded**" in run_dir.report.read_text()
    assert "A diagnostic, not a result." in printed
    until(lambda: processes_of(run_dir.root) == [], 10)
    verified = subprocess.run(
        [sys.executable, "-m", "sut.verify", str(run_dir.root)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "differ" not in verified.stdout, verified.stdout + verified.stderr


def test_a_lost_replica_ends_the_run_by_default(tmp_path: Path) -> None:
    with measuring(tmp_path) as (process, run_dir):
        os.kill(engines_of(run_dir)[1], signal.SIGKILL)
        printed, _ = process.communicate(timeout=120)
    failure = record.read(run_dir.record).failure
    assert process.returncode == 3 and failure is not None, printed
    assert (failure.code, failure.replica) == ("engine_died", 1)


def test_the_loss_of_all_replicas_ends_the_run(tmp_path: Path) -> None:
    with measuring(tmp_path, *CONTINUE) as (process, run_dir):
        for engine in engines_of(run_dir):
            os.kill(engine, signal.SIGKILL)
        printed, _ = process.communicate(timeout=120)
    found = record.read(run_dir.record)
    assert process.returncode == 3 and found.failure is not None, printed
    assert found.status == "failed" and found.failure.code == "engine_died"


def test_a_search_for_a_load_needs_every_replica(tmp_path: Path) -> None:
    found = submit(tmp_path, "--config", "replay", "--dry-run", *CONTINUE, command="tune")
    assert found.returncode == 2 and "--on-replica-loss continue" in found.stderr


def test_a_dispatcher_reports_a_loss() -> None:
    with served(4, 2) as dispatcher:
        dispatcher.continue_after_loss(True)
        dispatcher.lose(1, "engine_died", "gone")
        assert len(dispatcher.generate([0, 1, 2, 3], -1, 30.0)) == 4
        (loss,) = dispatcher.losses()
        assert (loss.why.code, loss.why.message, loss.why.replica) == ("engine_died", "gone", 1)
        assert loss.samples_restarted == loss.tokens_lost == 0
        assert dispatcher.failure is None


LOSS = ReplicaLoss(
    replica=1,
    nodes=("jw2",),
    code="stall",
    message="silent",
    at_s=2.0,
    samples_restarted=3,
    tokens_lost=12,
)


def test_survivors_are_counted_from_the_last_loss() -> None:
    done_ms = array("d", [1000.0, 3000.0, 4000.0])
    ints = array("q", [10, 10, 20])
    samples = SampleLog(
        sample_index=ints,
        replica=ints,
        prompt_tokens=ints,
        output_tokens=ints,
        issued_ms=done_ms,
        admitted_ms=done_ms,
        first_token_ms=done_ms,
        completed_ms=done_ms,
    )
    found = losses.survivors([LOSS], samples, 3)
    assert found is not None
    assert (found.num_replicas, found.samples, found.from_s) == (2, 2, 2.0)
    assert (found.samples_per_s, found.tokens_per_s) == (1.0, 15.0)
    assert losses.survivors([], samples, 3) is None
    late = msgspec.structs.replace(LOSS, at_s=9.0)
    assert losses.survivors([late], samples, 3) is None


def test_a_loss_is_a_rule_that_is_not_met() -> None:
    found = losses.check([LOSS])
    assert found is not None and not found.met and (found.measured, found.limit) == (1, 0)
    assert "node jw2" in found.text and "3 samples started again" in found.text
    assert losses.check([]) is None
    earlier = msgspec.structs.replace(LOSS, at_s=-5.0)
    assert "before this phase" in earlier.text


def test_the_option_does_not_change_a_plans_digest() -> None:
    plan = plan_of("replay")
    other = msgspec.structs.replace(plan, on_replica_loss=OnReplicaLoss.CONTINUE)
    assert plan.digest() == other.digest()
