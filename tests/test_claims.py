"""One attempt at a time owns a run directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cli import environment, until
from jobs import LONG, Job, plan_for, write_plan
from records import failed

from sut.cluster import claims
from sut.cluster.liveness import Process, this_process
from sut.errors import InputError, RunError
from sut.launch import ending
from sut.results import record
from sut.rundir import RunDir
from sut.watch.observer import Observer


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def owned(run_dir: RunDir, number: int = 1, **changes: object) -> None:
    """As if an attempt on another machine had claimed the run directory."""
    owner = claims.Owner(
        token="other", job_id="", restart=0, process=Process(host="other", pid=7, started=1)
    )
    run_dir.claims.mkdir(exist_ok=True)
    owner = msgspec.structs.replace(owner, **changes)
    (run_dir.claims / str(number)).write_bytes(msgspec.json.encode(owner))


def test_refuses_a_second_run_in_one_directory(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, "scenarios.server.min_duration_ms=4000"), tmp_path / "run")
    with Job(run_dir, 1) as first:
        first.until_measuring()
        with Job(run_dir, 1) as second:
            assert second.wait() == {0: 2}
        assert f"the run directory is in use ({run_dir})" in second.output(0)
        assert first.wait() == {0: 0}, first.output(0)
    assert len(first.record.attempts) == 1 and first.record.verdict == "VALID"
    assert [folder.name for folder in run_dir.loadgen_root.iterdir()] == ["performance"]


def test_a_job_leaves_a_living_run_alone(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, *LONG), tmp_path / "run")
    command = [sys.executable, "-m", "sut.job", str(run_dir)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as first:
        until(run_dir.progress.is_file)
        second = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert second.returncode == 2 and "the run directory is in use" in second.stderr
        error = RunError("killed", code="no_record")
        attempt = ending.attempt_of(plan_for(1))
        assert ending.close(plan_for(1), run_dir, attempt, error) is None
        assert not run_dir.record.exists() and first.poll() is None
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)
        assert first.wait(60) == 3


def test_a_run_that_begins_again_is_not_shown_as_finished(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1), tmp_path / "run")
    record.write(failed(record.Failure(code="truncated", message="wall limit")), run_dir)
    later = run_dir.record.stat().st_mtime_ns + 10**9

    def state(number: int, at_ns: int = later, **changes: object) -> str:
        owned(run_dir, number, **{"token": str(number), **changes})
        os.utime(run_dir.claims / str(number), ns=(at_ns, at_ns))
        return Observer(run_dir).look().state

    this = this_process()
    assert state(1) == "finished"  # another machine's: nothing is known of it
    assert state(2, process=this) == "starting"
    assert state(3, process=this, at_ns=later - 2 * 10**9) == "finished"
    assert state(4, process=this, released=True) == "finished"
    assert state(5, process=msgspec.structs.replace(this, started=1)) == "finished"
    assert state(6, process=this, token="own", at_ns=later - 2 * 10**9) == "finished"
    assert state(7, process=this, token="own") == "finished"  # renewed before it writes again
    assert claims.begins(run_dir, active=True) is False
    owned(run_dir, 8, token="another")
    os.utime(run_dir.claims / "8", ns=(later, later))
    assert claims.begins(run_dir, active=True) and not claims.begins(run_dir, active=False)


def test_an_attempt_that_lost_its_directory_writes_nothing(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, *LONG), tmp_path / "run")
    with Job(run_dir, 1) as job:
        job.until_measuring()
        owned(run_dir, 99)
        job.signal(0, signal.SIGTERM)
        assert job.wait() == {0: 3}
    assert "another attempt has taken over the run directory" in job.output(0)
    assert not run_dir.record.exists()


def test_a_killed_owner_is_replaced(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, *LONG), tmp_path / "run")
    with Job(run_dir, 1) as job:
        job.until_measuring()
        job.signal(0, signal.SIGKILL)
        job.wait()
    claims.take(run_dir, "", 0)


def test_processes_that_claim_at_once_get_one_owner(run_dir: RunDir) -> None:
    code = (
        "import sys\nfrom sut.cluster import claims\nfrom sut.rundir import RunDir\n"
        "input()\n"
        "try: claims.take(RunDir(sys.argv[1]), '', 0)\n"
        "except Exception as error: print(error)\n"
        "else: print('mine', flush=True)\n"
        "input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", code, str(run_dir)]
    every = [subprocess.Popen(command, env=environment(), **pipes) for _ in range(8)]
    for each in every:
        each.stdin.write("\n")
        each.stdin.flush()
    answers = [each.stdout.readline() for each in every]
    for each in every:
        each.communicate("\n")
    assert [answer for answer in answers if answer == "mine\n"] == ["mine\n"], answers


def test_a_process_of_the_owner_continues_its_claim(run_dir: RunDir) -> None:
    of_job = claims.take(run_dir, "", 0)
    of_run = claims.take(run_dir, "", 0, of_job.token)
    of_run.renew()
    of_job.renew()


def test_a_new_owner_ends_the_old_claim(run_dir: RunDir) -> None:
    old = claims.take(run_dir, "", 0)
    new = claims.take(run_dir, "", 1)  # of this process too
    new.renew()
    with pytest.raises(RunError, match="another attempt has taken over"):
        old.renew()


def test_a_removed_claim_ends_its_owner(run_dir: RunDir) -> None:
    claim = claims.take(run_dir, "", 0)
    shutil.rmtree(run_dir.claims)
    with pytest.raises(RunError, match="its claim was removed"):
        claim.renew()


def test_a_requeued_job_replaces_itself(run_dir: RunDir) -> None:
    owned(run_dir, job_id="7", restart=1)
    with pytest.raises(InputError, match="the run directory is in use"):
        claims.take(run_dir, "7", 1)
    claims.take(run_dir, "7", 2)


@pytest.mark.parametrize(
    ("squeue", "scontrol", "text"),
    [
        ("echo 'RUNNING|||||'", "", "job 7 is RUNNING"),
        ("echo 'FAILED|||||'", "", ""),
        ("", "echo ClusterName = here", ""),  # Slurm has forgotten the job
        ("exit 1", "exit 1", "Slurm does not answer"),
    ],
)
def test_asks_slurm_for_the_job_of_another_machine(
    squeue: str,
    scontrol: str,
    text: str,
    run_dir: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, does in (("squeue", squeue), ("scontrol", scontrol)):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{does}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    owned(run_dir, job_id="7")
    if text:
        with pytest.raises(InputError, match=text):
            claims.take(run_dir, "8", 0)
    else:
        claims.take(run_dir, "8", 0).renew()


def test_another_machine_without_slurm_may_still_run(run_dir: RunDir) -> None:
    owned(run_dir)
    with pytest.raises(InputError, match=f"rm -r {run_dir.claims}"):
        claims.take(run_dir, "", 0)


def test_a_claim_being_written_counts(run_dir: RunDir) -> None:
    run_dir.claims.mkdir()
    (run_dir.claims / "1").touch()
    with pytest.raises(InputError, match="the run directory is in use"):
        claims.take(run_dir, "", 0)


def test_a_process_of_another_container_is_unknown() -> None:
    here = this_process()
    assert here.lives()
    assert msgspec.structs.replace(here, namespace=1).lives() is None


def test_a_refused_attempt_leaves_a_complete_run_alone(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1), tmp_path / "run")
    with Job(run_dir, 1) as job:
        assert job.wait() == {0: 0}
    before = sorted(run_dir.claims.iterdir())
    command = [sys.executable, "-m", "sut.job", str(run_dir)]
    assert subprocess.run(command, env=environment()).returncode == 2
    assert sorted(run_dir.claims.iterdir()) == before
    assert record.read(run_dir.record).verdict == "VALID"


def test_a_released_claim_is_free_at_once(run_dir: RunDir) -> None:
    owned(run_dir, released=True)
    claims.take(run_dir, "", 0).renew()
