"""sut.cancel: a run on this machine and a Slurm job."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cli import fast, processes_of, submit, until
from cluster.cluster import Cluster
from loadgen_logs import ten_queries
from on_cluster import leftovers, replay
from on_cluster import submit as submit_job
from on_cluster import until as until_on_cluster
from plans import plan_of
from records import completed, failed, performance

from sut import cancel
from sut.cluster import slurm
from sut.launch import newrun
from sut.machine import processes
from sut.results import attempts, record
from sut.rundir import RunDir

LONG = ("--set", "min_duration_ms=60000")


def cancelled(run: RunDir) -> bool:
    failure = record.read(run.record).failure if run.record.is_file() else None
    return failure is not None and failure.code == "cancelled"


def test_ends_a_run_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(tmp_path, *fast(), *LONG, "--no-wait").returncode == 0
    run = RunDir(tmp_path / "runs" / "latest")
    # At once: the run may not have a process yet.
    assert cancel.main(["latest", "--root", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert "cancelled the run on this machine (SIGTERM to process" in printed
    assert f"record  {run.record}" in printed
    until(lambda: cancelled(run))
    until(lambda: not processes_of(run.root))
    assert cancel.main([str(run)]) == 2
    assert f"not active ({run}): it was cancelled already" in capsys.readouterr().err


def test_a_second_cancel_says_that_the_run_is_ending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(tmp_path, *fast(), *LONG, "--no-wait").returncode == 0
    run = RunDir(tmp_path / "runs" / "latest")
    until(lambda: run.progress.is_file() and '"phase"' in run.progress.read_text())
    pid = cancel._process(run)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it takes its time to end
    try:
        for text in ("cancelled the run on this machine", "was cancelled already and is ending"):
            assert cancel.main([str(run)]) == 0
            assert text in capsys.readouterr().out
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: cancelled(run))
    until(lambda: not processes_of(run.root))


def test_a_run_that_writes_its_report_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--config", "replay", "--preset", "quick", "--no-wait")
    assert submit(tmp_path, *arguments).returncode == 0
    run = RunDir(tmp_path / "runs" / "latest")
    until(lambda: attempts.has_record(run))
    assert cancel.main([str(run)]) == 2
    assert f"not active ({run}): it has ended, INVALID" in capsys.readouterr().err
    until(lambda: not processes_of(run.root))
    assert attempts.has_page(run) and record.read(run.record).failure is None


def test_the_job_of_a_run_that_has_ended_is_not_a_cancelled_run(
    queued: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_slurm(tmp_path, monkeypatch, f"RUNNING|None|||jw2|{queued}", "exit 0")
    record.write(completed(performance(ten_queries())), queued)
    assert cancel.main([str(queued)]) == 0
    assert "job 4711 is ended (scancel 4711); its run has ended, INVALID" in capsys.readouterr().out
    # A requeued job continues this one.
    record.write(failed(record.Failure(code="node_lost", message="jw3 is lost")), queued)
    assert cancel.main([str(queued)]) == 0
    assert "cancelled job 4711 on jw2" in capsys.readouterr().out


def test_a_run_without_a_process_is_not_active(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = newrun.create(plan_of("replay"), tmp_path / "runs")
    # The process of the job has ended, and its number belongs to another process.
    (run.job / f"{os.getpid()}_submitted.pkl").touch()
    assert cancel.main([str(run)]) == 2
    assert "no job of it, and no process on" in capsys.readouterr().err


def with_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, squeue: str, scancel: str) -> None:
    """squeue prints a line, scancel is a script."""
    for name, script in (("squeue", f"echo '{squeue}'"), ("scancel", scancel)):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}", prepend=os.pathsep)


@pytest.fixture
def queued(tmp_path: Path) -> RunDir:
    run = newrun.create(plan_of("replay", site="devcluster", nodes="all"), tmp_path / "runs")
    (run.job / "4711_submitted.pkl").touch()
    return run


def test_reports_what_slurm_refuses(
    queued: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = f"RUNNING|None|||jw[2-3]|{queued}"
    with_slurm(tmp_path, monkeypatch, job, "echo 'Access denied' >&2; exit 1")
    assert cancel.main([str(queued)]) == 3
    assert capsys.readouterr().err == "error: scancel 4711 failed: Access denied\n"


def test_records_a_job_that_ends_before_its_script_begins(
    queued: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = f"|None|||jw2|{queued}"
    answer = f'if [ -e {tmp_path}/over ]; then echo "CANCELLED{job}"; else echo "RUNNING{job}"; fi'
    with_slurm(tmp_path, monkeypatch, "", f"touch {tmp_path}/over")
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
    assert cancel.main([str(queued)]) == 0
    assert "cancelled job 4711 on jw2" in capsys.readouterr().out
    found = record.read(queued.record)
    assert found.failure is not None and found.failure.code == "cancelled"
    assert found.failure.first_line == "job 4711 was cancelled before the run wrote its record"
    assert found.attempts[-1].job_id == "4711"
    # A run that has begun records its end itself.
    queued.record.unlink()
    queued.progress.touch()
    (tmp_path / "over").unlink()
    assert cancel.main([str(queued)]) == 0 and not queued.record.exists()


def test_says_that_a_job_is_ending_already(
    queued: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_slurm(tmp_path, monkeypatch, f"COMPLETING|None|||jw2|{queued}", "exit 0")
    assert cancel.main([str(queued)]) == 0
    assert "job 4711 was ending already (scancel 4711)" in capsys.readouterr().out


def test_reads_a_comment_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_slurm(tmp_path, monkeypatch, "", "exit 0")
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\nprintf 'RUNNING|None|||jw2|\\377\\n'\n")
    state = slurm.job_state("4711")
    assert state is not None and state.nodes == "jw2" and state.comment == "\ufffd"


def test_never_cancels_a_job_of_another_run(
    queued: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_slurm(tmp_path, monkeypatch, "RUNNING|None|||jw2|/another/run", "exit 0")
    assert cancel.main([str(queued)]) == 2
    # A number of a process is not a job.
    local = newrun.create(plan_of("replay"), tmp_path / "runs")
    (local.job / "4712_submitted.pkl").touch()
    with_slurm(tmp_path, monkeypatch, "RUNNING|None|||jw2|", "exit 0")
    assert cancel.main([str(local)]) == 2
    queued.progress.touch()
    assert cancel.main([str(queued)]) == 0


def test_finds_a_process_by_its_whole_command_line(tmp_path: Path) -> None:
    assert processes.running("sut.run", str(tmp_path)) is None
    assert processes.arguments(os.getpid())[0] != "" and processes.arguments(2**30) == []


def test_knows_which_signals_a_process_handles() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert not processes.handles(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    assert processes.handles(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert not processes.handles(2**30, signal.SIGUSR1)


def test_ends_jobs_that_run_and_that_wait(idle: Cluster) -> None:
    first = submit_job(idle, *replay(100), "--nodes", "jw2")
    tell = ("--notify", "echo $SUT_FAILURE >~/notified")
    second = submit_job(idle, *replay(100), "--nodes", "jw2", *tell)
    until_on_cluster(first.has_measured)
    done = idle.run(f"python -m sut.cancel {second.job_id}")
    assert f"cancelled job {second.job_id}, which had not started" in done.stdout, done.stderr
    assert (idle.home() / "notified").read_text() == "cancelled\n"
    done = idle.run(f"python -m sut.cancel {Path(first.name).name}")
    assert f"cancelled job {first.job_id} on jw2" in done.stdout, done.stderr
    assert f"record  {first.name}/record.json" in done.stdout
    until_on_cluster(lambda: cancelled(first.dir), 60)
    assert {first.end(), second.end()} == {"CANCELLED"}
    until_on_cluster(lambda: leftovers(idle) == [])  # Slurm reports the state first
    until_on_cluster(lambda: idle.run(f"squeue -h -t completing -j {first.job_id}").stdout == "")
    done = idle.run(f"python -m sut.cancel {first.job_id}")
    assert done.returncode == 2 and "it was cancelled already" in done.stderr
