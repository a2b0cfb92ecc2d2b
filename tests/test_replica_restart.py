"""A run whose lost engines are started again and return (``--on-replica-loss restart``)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cli import environment, processes_of, submit, until
from test_replica_loss import LOSS, engines_of, measuring

from sut.results import losses, record, sample_log
from sut.results.losses import ReplicaLoss
from sut.results.phase_record import PhaseRecord
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir
from sut.serving import keys

RESTART = ("--on-replica-loss", "restart")
FEW = ("min_duration_ms=2000", "min_query_count=60")
LONG = ("--set", "scenarios.server.min_duration_ms=15000")


def the_phase(run_dir: RunDir, printed: str) -> PhaseRecord:
    """The only phase of a run that ended INVALID, with each sample completed once."""
    found = record.read(run_dir.record)
    assert found.status == "completed" and found.verdict == "INVALID", printed
    (phase,) = found.phases
    stats = phase.dispatcher
    assert stats is not None and stats.failed == 0 and stats.issued == stats.completed
    assert phase.loadgen["result_query_count"] == stats.completed
    samples = sample_log.read(run_dir.samples("performance"))
    assert samples is not None and len(samples) == stats.completed
    (reason,) = (each for each in phase.verdict.reasons if each.code == "lost_replicas")
    assert reason.measured == len(phase.losses) and reason.crossed_s == phase.losses[0].at_s
    return phase


def completed_by(run_dir: RunDir, replica: int, from_s: float) -> int:
    samples = sample_log.read(run_dir.samples("performance"))
    assert samples is not None
    rows = zip(samples.replica, samples.completed_ms, strict=True)
    return sum(index == replica and ms > from_s * 1e3 for index, ms in rows)


def has_printed(run_dir: RunDir, text: str) -> bool:
    return any(text in log.read_text() for log in run_dir.job.glob("*_log.out"))


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_replica_returns(tmp_path: Path, by: signal.Signals) -> None:
    with measuring(tmp_path, *RESTART, *LONG) as (process, run_dir):
        lost = engines_of(run_dir)[1]
        os.kill(lost, by)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    phase = the_phase(run_dir, printed)
    (loss,) = phase.losses
    assert loss.replica == 1 and loss.samples_restarted > 0 and loss.starts == 1
    assert loss.code == ("engine_died" if by is signal.SIGKILL else "stall"), loss
    assert loss.returned_s is not None and loss.returned_s > loss.at_s > 0
    assert completed_by(run_dir, 1, loss.returned_s) > 0
    assert phase.survivors is not None and phase.survivors.num_replicas == 1
    assert phase.survivors.to_s == loss.returned_s
    assert has_printed(run_dir, "Its engine is started again.")
    assert has_printed(run_dir, f"warning: {loss.return_text}")
    assert loss.return_text in run_dir.report.read_text() and loss.return_text in printed
    assert "--- restart 1 ---" in run_dir.replica_log(1).read_text()
    until(lambda: processes_of(run_dir.root) == [], 10)
    verified = subprocess.run(
        [sys.executable, "-m", "sut.verify", str(run_dir.root)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "differ" not in verified.stdout, verified.stdout + verified.stderr


def test_samples_wait_for_the_only_replica(tmp_path: Path) -> None:
    one = ("--set", "site.num_replicas=1")
    with measuring(tmp_path, *RESTART, *LONG, *one) as (process, run_dir):
        os.kill(engines_of(run_dir)[0], signal.SIGKILL)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    phase = the_phase(run_dir, printed)
    (loss,) = phase.losses
    assert loss.replica == 0 and loss.returned_s is not None
    assert completed_by(run_dir, 0, loss.returned_s) > 0
    assert phase.survivors is None  # there were none


def test_the_next_test_waits_for_the_return(tmp_path: Path) -> None:
    """The warm-up takes as long as an answer, some seconds."""
    sets = ("engine.replay.step_base_us=20000", "scenarios.server.target_qps=20")
    short = (*sets, *(f"scenarios.server.{each}" for each in FEW))
    options = [word for each in short for word in ("--set", each)]
    with measuring(tmp_path, *RESTART, "--repeat", "2", *options) as (process, run_dir):
        os.kill(engines_of(run_dir)[1], signal.SIGKILL)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    first, second = record.read(run_dir.record).phases
    assert [loss.replica for loss in first.losses] == [1]
    assert "lost_replicas" in {each.code for each in first.verdict.reasons}
    assert second.losses == () and second.survivors is None
    assert "lost_replicas" not in {each.code for each in second.verdict.reasons}
    assert second.replicas[1].samples > 0


def kill_each(run_dir: RunDir, replica: int, is_over: Callable[[], bool]) -> None:
    """Kill a replica's engine whenever it runs."""

    def kill() -> bool:
        for line in processes_of(run_dir.root):
            if "replay_engine" in line and line.split()[-2:] == ["--seed", str(replica)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line.partition(":")[0]), signal.SIGKILL)
        return is_over()

    until(kill, 60)


def test_an_engine_that_keeps_dying_stays_lost(tmp_path: Path) -> None:
    """Its warm-up takes a second."""
    slow = ("--set", "engine.replay.step_base_us=20000")
    with measuring(tmp_path, *RESTART, *LONG, *slow) as (process, run_dir):
        kill_each(run_dir, 1, lambda: has_printed(run_dir, "did not return: "))
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    phase = the_phase(run_dir, printed)
    last = phase.losses[-1]
    assert {loss.replica for loss in phase.losses} == {1}
    assert sum(loss.starts for loss in phase.losses) == 2
    assert last.returned_s is None and last.start_failure
    assert f"It did not return: {last.start_failure}." in run_dir.report.read_text()
    assert phase.survivors is not None and phase.survivors.num_replicas == 1


def test_the_last_engine_that_keeps_dying_ends_the_run(tmp_path: Path) -> None:
    one = ("--set", "site.num_replicas=1")
    slow = ("--set", "engine.replay.step_base_us=20000")
    with measuring(tmp_path, *RESTART, *LONG, *one, *slow) as (process, run_dir):
        kill_each(run_dir, 0, lambda: process.poll() is not None)
        printed, _ = process.communicate(timeout=120)
    found = record.read(run_dir.record)
    assert process.returncode == 3 and found.failure is not None, printed
    assert found.status == "failed" and found.failure.code == "engine_died"


def test_kept_engines_are_not_started_again(tmp_path: Path) -> None:
    found = submit(tmp_path, "--config", "replay", "--dry-run", "--keep-engine", *RESTART)
    assert found.returncode == 2 and "--keep-engine" in found.stderr


def test_each_start_of_an_engine_has_keys_of_its_own() -> None:
    made = keys.make(2, 2)
    of_starts = made.of_starts
    assert [each[0] for each in of_starts] == list(made.engines)
    flat = [each for of_replica in of_starts for each in of_replica]
    assert len(flat) == 6
    assert len({each.public for each in flat}) == len({each.secret for each in flat}) == 6
    assert [len(each) for each in keys.make(2).of_starts] == [1, 1]


RETURNED = msgspec.structs.replace(LOSS, returned_s=3.5, starts=1)


def test_survivors_are_counted_to_the_first_return() -> None:
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
    found = losses.survivors([RETURNED], samples, 3)
    assert found is not None
    assert (found.num_replicas, found.samples, found.from_s, found.to_s) == (2, 1, 2.0, 3.5)
    assert found.samples_per_s == pytest.approx(1 / 1.5, abs=1e-3)
    assert "From 2 s to 3.5 s" in found.text

    def lost_again(at_s: float) -> ReplicaLoss:
        return msgspec.structs.replace(LOSS, at_s=at_s)

    again = losses.survivors([RETURNED, lost_again(3.8)], samples, 3)
    assert again is not None and (again.num_replicas, again.to_s) == (2, None)
    both = losses.survivors([LOSS, msgspec.structs.replace(lost_again(2.5), replica=0)], samples, 3)
    assert both is not None and both.num_replicas == 1


def test_a_return_does_not_make_the_phase_valid() -> None:
    found = losses.check([RETURNED])
    assert found is not None and not found.met
    assert "Replica 1 returned at 3.5 s, 1.5 s after its loss." in found.text
