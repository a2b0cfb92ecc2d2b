"""A record for every run: also where its own process could not start, or was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import msgspec
import pytest
from cli import ROOT, environment, fast, latest, set_arguments, submit, until
from jobs import LONG, Job, plan_for, write_plan
from plans import plan_of

from sut.cluster import sbatch
from sut.cluster.sbatch import Submission
from sut.errors import SutError
from sut.launch import members, newrun
from sut.launch.members import Planned
from sut.results import diagnosis, record
from sut.results.progress import Line
from sut.rundir import RunDir

# One query after the other, and limits that a busy machine meets.
ACCURACY_LASTS = [
    "scenarios.server.target_qps=100",
    "scenarios.server.ttft_latency_ms=60000",
    "scenarios.server.tpot_latency_ms=6000",
]


def program(folder: Path, name: str, text: str) -> None:
    """A program of the host, faked at the process boundary."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def on_path(folder: Path, **changes: str) -> dict[str, str]:
    return environment(PATH=f"{folder / 'bin'}:{os.environ['PATH']}", **changes)


@pytest.fixture
def in_image(tmp_path: Path) -> RunDir:
    """A run of one node in an image."""
    image = tmp_path / "an.sif"
    image.touch()
    program(tmp_path, "scontrol", 'echo "$3"')
    sets = (f"site.container.image={image}", f"site.cache={tmp_path / 'cache'}")
    return newrun.create(plan_of("replay", site="devcluster", nodes="jw2", sets=sets), tmp_path)


def run_job(
    run_dir: RunDir, env: dict[str, str], output: IO[str] | int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "jw2", "SLURM_NODEID": "0"}
    return subprocess.run(
        [sys.executable, "-m", "sut.job", str(run_dir)],
        env=env | job,
        stdout=output,
        stderr=subprocess.STDOUT if output != subprocess.PIPE else subprocess.PIPE,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("apptainer", "code", "status", "text"),
    [
        ("exit 255", "no_record", "failed", "no record on jw2 (exit code 255)"),
        ("kill -KILL $$", "no_record", "failed", "no record on jw2 (killed by SIGKILL)"),
        ("trap - TERM; kill -SEGV $$", "no_record", "failed", "(killed by SIGSEGV)"),
        ("exit 143", "cancelled", "failed", "ended by SIGTERM on jw2 before the run began"),
        ("exit 140", "truncated", "truncated", "ended by SIGUSR2 on jw2 before the run began"),
    ],
)
def test_a_container_that_does_not_start_leaves_a_record(
    in_image: RunDir, tmp_path: Path, apptainer: str, code: str, status: str, text: str
) -> None:
    program(tmp_path, "apptainer", apptainer)
    done = run_job(in_image, on_path(tmp_path))
    found = record.read(in_image.record)
    assert (done.returncode, found.exit_code, found.status) == (3, 3, status), done.stderr
    assert found.failure is not None and found.failure.code == code
    assert text in found.failure.message and found.failure.node == "jw2"
    assert [attempt.job_id for attempt in found.attempts] == ["7"]
    assert text in in_image.report.read_text() and in_image.report_html.is_file()


@pytest.mark.parametrize(
    ("squeue", "preempted", "sacct", "signalled", "code", "text"),
    [
        ("COMPLETING|None", "", "CANCELLED by 1500", "", "cancelled", "job 7 was cancelled before"),
        (
            "COMPLETING|None",
            "",
            "RESIZING\nCANCELLED by 1500",
            "",
            "cancelled",
            "job 7 was cancelled before",
        ),
        ("COMPLETING|None", "", "", "SIGTERM", "cancelled", "ended by SIGTERM on jw2 before"),
        ("COMPLETING|TimeLimit", "", "", "SIGTERM", "truncated", "job 7 reached its wall limit"),
        ("COMPLETING|None", "2026-11-28", "RUNNING", "SIGTERM", "cancelled", "job 7 was preempted"),
        ("COMPLETING|NodeDown", "", "", "", "node_lost", "job 7 lost a node"),
        ("CANCELLED|None", "", "", "", "cancelled", "job 7 was cancelled before"),
        ("RUNNING|None", "", "CANCELLED", "", "no_record", "no record on jw2 (its step ended)"),
        ("", "", "", "", "no_record", "left no record on jw2 (its step ended)"),
    ],
)
def test_the_end_of_a_job_is_the_cause(
    in_image: RunDir,
    tmp_path: Path,
    squeue: str,
    preempted: str,
    sacct: str,
    signalled: str,
    code: str,
    text: str,
) -> None:
    """The last command of a batch script, whose step left no record."""
    answers = f"*--steps*) ;; *) echo '{squeue}'"
    program(tmp_path, "squeue", f'case "$*" in {answers};; esac')
    program(tmp_path, "sacct", f"echo '{sacct}'")
    program(
        tmp_path,
        "scontrol",
        f'case "$2" in hostnames) echo "$3";; job) echo PreemptTime={preempted or None};; '
        f"*) echo requeued >{tmp_path / 'requeued'};; esac",
    )
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "jw2", sbatch.SIGNALLED: signalled}
    done = subprocess.run(
        [sys.executable, "-m", "sut.requeue", str(in_image)],
        env=on_path(tmp_path, **job),
        capture_output=True,
        text=True,
    )
    found = record.read(in_image.record)
    assert done.returncode == 0 and found.failure is not None, done.stderr
    assert (found.failure.code, text in found.failure.message) == (code, True), found.failure
    assert found.status == ("truncated" if code == "truncated" else "failed")
    assert (tmp_path / "requeued").exists() == (code == "node_lost")


def test_a_batch_script_notes_the_signal_that_ended_it(tmp_path: Path) -> None:
    plan = plan_of("replay", site="devcluster", nodes="jw2")
    run_dir = write_plan(plan, tmp_path / "run")
    assert plan.slurm is not None
    trap, *_ = (line for line in sbatch._setup(plan.slurm, run_dir) if line.endswith(" TERM"))
    script = f"trap 'printenv {sbatch.SIGNALLED}' EXIT\n{trap}\nkill -TERM $$"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "SIGTERM\n")


def test_apptainers_error_in_the_jobs_output_is_the_cause(in_image: RunDir, tmp_path: Path) -> None:
    fatal = "FATAL:   could not open image /an.sif: lstat /an.sif: no such file or directory"
    program(tmp_path, "apptainer", f"echo '{fatal}' >&2; exit 255")
    log = in_image.job / "7_0_log.out"
    with log.open("w") as output:
        run_job(in_image, on_path(tmp_path), output)
    failure = record.read(in_image.record).failure
    assert failure is not None and failure.code == "no_record"
    known = diagnosis.known_failures()["image_missing"]
    first, *lines, hint = failure.message.splitlines()
    assert first == f"the run left no record on jw2 (exit code 255): {known.cause}"
    assert lines == [f"from {log}:", f"| {fatal}"] and hint == f"hint: {known.remedy}"
    assert fatal in in_image.report.read_text() and known.cause in in_image.report.read_text()


def test_a_host_without_apptainer_leaves_a_record(in_image: RunDir, tmp_path: Path) -> None:
    done = run_job(in_image, on_path(tmp_path) | {"PATH": str(tmp_path / "bin")})
    failure = record.read(in_image.record).failure
    assert done.returncode == 2 and failure is not None
    assert "cannot start apptainer" in failure.message


def test_another_node_that_cannot_start_is_the_cause(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as job:
        until(lambda: any("waiting for node n1" in line.step for line in job.lines()))
        code = "import sys; from sut import job; sys.executable = '/no/python'; "
        code += f"sys.exit(job.main([{str(run_dir)!r}]))"
        around = {"SUT_NODES": "n0,n1", "SLURM_JOB_ID": "77", "SLURM_NODEID": "1"}
        env = environment(SLURM_RESTART_COUNT="0", **around)
        assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 2
        assert job.wait(20) == {0: 3}
    failure = job.record.failure
    assert failure is not None and failure.node == "n1"
    assert "cannot start /no/python" in failure.message


def test_a_module_that_cannot_be_imported_leaves_a_record(tmp_path: Path) -> None:
    broken = tmp_path / "checkout"
    shutil.copytree(ROOT / "sut", broken / "sut")
    (broken / "configs").symlink_to(ROOT / "configs")
    with (broken / "sut/run/phase.py").open("a") as file:
        file.write("raise ImportError('libfoo.so: no such file')\n")
    run = submit(tmp_path, *fast(), env=environment(PYTHONPATH=str(broken)))
    failure = latest(tmp_path).failure
    assert run.returncode == 3 and failure is not None and failure.code == "no_record"
    assert "libfoo.so: no such file" in run.stdout and "libfoo.so" in failure.message


def kill(run_dir: RunDir) -> None:
    """Kill a run's own process as the kernel does when memory is short."""
    first = msgspec.json.decode(run_dir.progress.read_bytes().splitlines()[0], type=Line)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)


def test_a_killed_run_keeps_its_phases_and_continues(tmp_path: Path) -> None:
    sets = set_arguments([*ACCURACY_LASTS, "site.measure_overhead=true"])
    assert submit(tmp_path, *fast(), "--mode", "all", *sets, "--no-wait").returncode == 0
    run_dir = RunDir(tmp_path / "runs" / "latest")
    until(
        lambda: run_dir.progress.is_file() and '"phase":"accuracy"' in run_dir.progress.read_text(),
        60,
    )
    kill(run_dir)
    until(lambda: run_dir.record.is_file() and not record.read(run_dir.record).interim)
    found = latest(tmp_path)
    assert found.failure is not None and found.failure.code == "no_record"
    assert "killed by SIGKILL" in found.failure.message
    assert [phase.name for phase in found.phases] == ["performance"]
    assert found.overhead is not None and found.overhead.ceiling is not None
    (attempt,) = found.attempts
    assert attempt.status == "failed" and attempt.ended_utc is not None
    again = subprocess.run(
        [sys.executable, "-m", "sut.job", str(run_dir)], env=environment(), capture_output=True
    )
    assert again.returncode == 0, again.stdout
    continued = latest(tmp_path)
    assert continued.verdict == "VALID" and continued.phases[0] == found.phases[0]
    assert continued.overhead == found.overhead
    assert [attempt.status for attempt in continued.attempts] == ["failed", "completed"]


def test_a_complete_run_stays_as_it_is(tmp_path: Path) -> None:
    assert submit(tmp_path, "--config", "replay", "--preset", "quick").returncode == 1
    run_dir = RunDir(tmp_path / "runs" / "latest")
    kept = run_dir.record.read_bytes()
    again = subprocess.run(
        [sys.executable, "-m", "sut.job", str(run_dir)], env=environment(), capture_output=True
    )
    assert again.returncode == 2 and run_dir.record.read_bytes() == kept


def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submission: Submission) -> str:
    """The error of a job that sbatch refuses."""
    for name in ("srun", "scontrol", "sinfo", "squeue"):
        program(tmp_path, name, "exit 1")
    errors = "echo invalid value: 25:99 >&2; echo sbatch: error: invalid partition: gpu >&2"
    program(tmp_path, "sbatch", f"{errors}; exit 1")
    monkeypatch.setenv("PATH", on_path(tmp_path)["PATH"])
    plan = plan_of("replay", site="devcluster", nodes="jw2")
    with pytest.raises(SutError) as error:
        members.submit(Planned("", plan, tmp_path / "runs"), submission)
    return str(error.value)


def test_a_refused_job_names_what_sbatch_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(tmp_path, monkeypatch, Submission(begin="25:99"))
    assert "): invalid value: 25:99; invalid partition: gpu\n" in text
    assert text.endswith(
        "hint: correct --begin or slurm: in the file of site devcluster; to leave an option out: "
        "docs/sites.md"
    )
    assert capsys.readouterr().err == ""  # the command prints the error once


def test_submitit_warns_once_on_the_current_stderr() -> None:
    code = (
        "import io, logging, sys\n"
        "from sut.launch.executor import load_submitit\n"
        "kept = sys.stdout, sys.stderr\n"
        "sys.stdout, sys.stderr = first = io.StringIO(), io.StringIO()\n"
        "load_submitit()\n"
        "sys.stdout, sys.stderr = kept\n"
        "for stream in first: stream.close()\n"
        "logging.getLogger('submitit').warning('a warning')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "a warning\n")


def test_a_refused_job_has_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path, monkeypatch, Submission())
    found = latest(tmp_path)
    assert found.failure is not None and found.failure.code == "submit"
    assert "invalid partition: gpu" in found.failure.message
    assert [attempt.job_id for attempt in found.attempts] == [""]
    listed = subprocess.run(
        [sys.executable, "-m", "sut.history", "--root", str(tmp_path / "runs")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert "FAILED" in listed.stdout and "without a record" not in listed.stdout


def test_a_truncated_run_prints_one_way_to_continue(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, *LONG), tmp_path / "run")
    with Job(run_dir, 1) as job:
        job.until_measuring()
        job.signal(0, signal.SIGUSR2)
        assert job.wait() == {0: 3}
    failure = job.record.failure
    assert failure is not None and failure.code == "truncated"
    hint = f"to continue: python -m sut.job {run_dir}"
    assert failure.message.endswith(f"hint: {hint}")
    report = run_dir.report.read_text()
    assert report.count(str(run_dir)) >= 1 and "runs the same plan again" not in report
