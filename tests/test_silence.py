"""A run is followed to a clear end, whatever Slurm reports or does not report.

Slurm's commands are scripts here: the real ones forget a job, time out or report late only after
minutes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from cli import environment, fast, latest
from plans import plan_of
from records import completed, failed

from sut.cluster import liveness, slurm
from sut.errors import EXIT_FAILED, NODE_LOST
from sut.interrupts import Interrupt
from sut.launch import newrun
from sut.launch.executor import Submitted
from sut.launch.members import Job
from sut.results import record
from sut.results.progress import Line
from sut.rundir import RunDir
from sut.watch import follow, observer, patience
from sut.watch.observer import Observer
from sut.watch.patience import Patience
from sut.watch.state import RunState

RUNNING = "RUNNING|None|||jw2|"
COMPLETED_ROW = "COMPLETED|2026-11-24T10:00:00|2026-11-24T10:01:00|jw2|"

# sbatch that runs its script at once; squeue and sacct know the job only as SILENCE allows.
SBATCH = """#!/bin/bash
script="${@: -1}"
echo RUNNING >"$SLURM_DIR/state"
(
    export SLURM_JOB_ID=4711 SLURM_JOB_NODELIST="$(hostname)" SLURM_NNODES=1 SLURM_NTASKS=1
    export SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURMD_NODENAME="$(hostname)"
    log=$(sed -n 's/^#SBATCH --output=//p' "$script" | sed 's/%j/4711/; s/%t/0/')
    setsid bash "$script" >"$log" 2>&1 </dev/null
    echo COMPLETED >"$SLURM_DIR/state"
) >/dev/null 2>&1 &
echo "Submitted batch job 4711"
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == --output ]] && shift; shift; done
exec "$@"
"""
SQUEUE = """#!/bin/bash
case $SILENCE in purged) grep -q COMPLETED "$SLURM_DIR/state" && exit 1 ;; unknown) exit 1 ;; esac
[[ $SILENCE == stale ]] && exit 1
echo "$(cat "$SLURM_DIR/state")|None|||$(hostname)|(null)"
"""
SACCT = """#!/bin/bash
[[ $SILENCE == stale ]] || exit 1
echo "RUNNING|2026-11-24T10:00:00|2026-11-24T10:01:00|$(hostname)|"
"""
SCONTROL = """#!/bin/bash
case "$*" in "show hostnames "*) hostname ;; *) exit 1 ;; esac
"""


def install(folder: Path, **scripts: str) -> str:
    """Programs of a folder, which is returned."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return str(programs)


def printing(lines: str) -> str:
    return f"#!/bin/sh\ncat <<'end'\n{lines}\nend\n" if lines else "#!/bin/sh\nexit 1\n"


class Says(Protocol):
    def __call__(self, squeue: str = "", sacct: str = "") -> None: ...


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Sets what squeue and sacct print; nothing is an error of theirs."""
    original = os.environ["PATH"]

    def set_(squeue: str = "", sacct: str = "") -> None:
        programs = install(tmp_path, squeue=printing(squeue), sacct=printing(sacct))
        monkeypatch.setenv("PATH", f"{programs}:{original}")

    return set_


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run that was submitted as job 4711."""
    plan = plan_of("replay", site="devcluster")
    run = newrun.create(plan, tmp_path / "runs")
    (run.job / "4711_submitted.pkl").touch()
    return Job(Submitted("4711", run.job / "4711_0_log.out"), plan, run)


def progress(run: RunDir, silent_s: float = 0.0) -> None:
    """A line of progress, written so long ago, as all files of the run."""
    line = Line(t_s=9.0, step="performance", phase="performance", elapsed_s=8.0)
    first = Line(t_s=0.0, step="starting", pid=1, host="jw2")
    run.progress.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in (first, line)))
    then = run.progress.stat().st_mtime - silent_s
    for path in (run.plan, run.progress):
        os.utime(path, (then, then))


@pytest.mark.parametrize("silence", ["purged", "unknown", "stale"])
def test_wait_ends_with_the_record_of_a_job_that_slurm_forgot(tmp_path: Path, silence: str) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        f"name: forgetful\ndevice: cpu\nnodes: [{{name: {socket.gethostname()}, gpus: 1}}]\n"
        f"interface: lo\nrun_root: {tmp_path / 'runs'}\ncache: {tmp_path / 'cache'}\n"
        "slurm: {max_time_min: 240}\n"
    )
    programs = install(
        tmp_path, sbatch=SBATCH, srun=SRUN, squeue=SQUEUE, sacct=SACCT, scontrol=SCONTROL
    )
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "sut.submit", "--wait", "--site", str(site), *fast()],
        cwd=tmp_path,
        env=environment(PATH=path, SILENCE=silence, SLURM_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert latest(tmp_path).status == "completed", done.stdout + done.stderr
    assert done.returncode == latest(tmp_path).exit_code, done.stdout + done.stderr
    assert f"report    {(tmp_path / 'runs/latest').resolve()}" in done.stdout


def test_a_job_that_nothing_knows_ends_the_wait_but_not_the_run(
    job: Job, says: Says, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOST_AFTER_S", 0.5)
    says()
    progress(job.run_dir, silent_s=patience.GIVE_UP_S + 1)
    with Interrupt() as interrupt:
        assert follow.follow(job, interrupt) == EXIT_FAILED
    error = capsys.readouterr().err
    assert "error: no sign of job 4711 for 10 minutes (Slurm does not know job 4711 here" in error
    assert f"hint: look at it later: python -m sut.watch {job.run_dir}" in error
    assert not job.run_dir.record.exists()


def test_a_job_that_ended_without_a_record_gets_one(
    job: Job, says: Says, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOST_AFTER_S", 0.5)
    says(sacct=COMPLETED_ROW)
    progress(job.run_dir)
    with Interrupt() as interrupt:
        assert follow.follow(job, interrupt) == EXIT_FAILED
    assert "ended without a record: job 4711 on jw2 is COMPLETED" in capsys.readouterr().out
    found = record.read(job.run_dir.record)
    assert found.failure is not None and found.failure.code == "no_record"


NO_ANSWER = {
    "unreachable": "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
    "no accounting": "echo 'Slurm accounting storage is disabled' >&2; exit 1",
    "nothing printed": "exit 0",
    "a header only": "echo 'CLUSTER: second'",
    "hanging": "exec sleep 60",
}


@pytest.mark.parametrize("answer", list(NO_ANSWER))
def test_a_record_ends_the_wait_whatever_slurm_does(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    script = f"#!/bin/sh\n{NO_ANSWER[answer]}\n"
    programs = install(tmp_path, squeue=script, sacct=script)
    monkeypatch.setenv("PATH", programs, prepend=os.pathsep)
    monkeypatch.setattr(slurm, "ANSWER_S", 0.2)
    progress(job.run_dir)
    found = liveness.of_run(job.run_dir, job.plan)
    assert found.state == "unknown" and "or does not answer" in found.why
    record.write(completed(plan=job.plan), job.run_dir)
    with Interrupt() as interrupt:
        assert follow.follow(job, interrupt) == record.read(job.run_dir.record).exit_code


# Slurm's words.


# https://slurm.schedmd.com/job_state_codes.html: the states, and the flags that replace them.
DOCUMENTED = """
BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PENDING PREEMPTED RUNNING
SUSPENDED TIMEOUT
COMPLETING CONFIGURING EXPEDITING LAUNCH_FAILED POWER_UP_NODE RECONFIG_FAIL REQUEUED REQUEUE_FED
REQUEUE_HOLD RESIZING RESV_DEL_HOLD REVOKED SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED UPDATE_DB
"""


def test_every_documented_state_is_known_once() -> None:
    known = [*slurm.ENDED, *slurm.WAITING, *slurm.ACTIVE]
    assert sorted(known) == sorted(DOCUMENTED.split())


@pytest.mark.parametrize("word", sorted({*slurm.WAITING, *slurm.ACTIVE, "NEWLY"}))
def test_a_state_that_is_no_end_is_waited_for(job: Job, says: Says, word: str) -> None:
    says(squeue=f"{word}|None|||jw2|")
    found = liveness.of_run(job.run_dir, job.plan)
    assert found.state == ("pending" if word in slurm.WAITING else "active")
    assert found.job is not None and found.job.alive


@pytest.mark.parametrize("word", sorted(slurm.ENDED))
def test_every_end_is_known(job: Job, says: Says, word: str) -> None:
    says(squeue=f"{word}|None|||jw2|")
    found = liveness.of_run(job.run_dir, job.plan)
    assert found.state == "ended" and word in found.why


def test_a_row_of_accounting_does_not_keep_a_job_alive(job: Job, says: Says) -> None:
    says(sacct=COMPLETED_ROW.replace("COMPLETED", "RUNNING"))
    found = liveness.of_run(job.run_dir, job.plan)
    assert found.state == "unknown"
    assert found.why == "job 4711 is RUNNING in accounting, but not in the queue"


def test_the_last_of_several_rows_counts(job: Job, says: Says) -> None:
    requeued = COMPLETED_ROW.replace("COMPLETED", "REQUEUED")
    says(sacct=f"{requeued}\n{COMPLETED_ROW}")
    assert liveness.of_run(job.run_dir, job.plan).state == "ended"
    says(sacct=f"{requeued}\n{requeued.replace('REQUEUED', 'PENDING')}")
    assert liveness.of_run(job.run_dir, job.plan).state == "unknown"


def test_a_line_that_is_no_row_is_skipped(job: Job, says: Says) -> None:
    says(squeue="slurm_load_jobs: retrying", sacct=COMPLETED_ROW)
    assert liveness.of_run(job.run_dir, job.plan).state == "ended"


# The time without an answer.


def test_a_few_unanswered_queries_change_nothing(
    job: Job, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(squeue="PENDING|Resources||||")
    watching = Observer(job.run_dir, ask_slurm_s=0.0)
    assert watching.look().state == "pending"
    says()
    assert watching.look().state == "pending"
    monkeypatch.setattr(observer, "SILENT_S", 0.0)
    state = watching.look()
    assert state.state == "unknown" and state.unheard_s < 60 and state.job is None


def test_progress_shows_that_a_forgotten_job_runs(job: Job, says: Says) -> None:
    says()
    progress(job.run_dir)
    assert Observer(job.run_dir).look().state == "running"
    progress(job.run_dir, silent_s=100)
    state = Observer(job.run_dir).look()
    assert state.state == "unknown" and 100 <= state.unheard_s < 200


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def looked(job: Job, **changes: object) -> RunState:
    return msgspec.structs.replace(Observer(job.run_dir).look(), **changes)


def lasts(waiting: Patience, clock: Clock, state: RunState, seconds: float) -> bool:
    """Whether a state ends the wait once it has lasted so long, and not before."""
    begin, ends = clock.now, waiting.ends(state)
    for clock.now in (begin + seconds - 0.5, begin + seconds):
        ends, before = waiting.ends(state), ends
        assert not before
    return ends


def test_lost_and_unknown_runs_end_the_wait_in_time(job: Job, says: Says, clock: Clock) -> None:
    says()
    lost, unknown = looked(job, state="lost"), looked(job, state="unknown", unheard_s=599.0)
    assert lasts(Patience(), clock, lost, 10)
    assert not lasts(Patience(), clock, unknown, 3600)
    unheard = msgspec.structs.replace(unknown, unheard_s=600.0)
    assert lasts(Patience(), clock, unheard, 10)
    waiting = Patience()
    assert not waiting.ends(lost)
    clock.now += 60
    assert not waiting.ends(looked(job, state="running"))  # its record was late
    assert not waiting.ends(lost)


def test_a_finished_run_is_waited_for_until_its_job_leaves(
    job: Job, says: Says, clock: Clock
) -> None:
    says(squeue=RUNNING)
    record.write(completed(plan=job.plan), job.run_dir)
    over = looked(job)
    assert over.state == "finished" and over.job is not None and over.ending
    over = msgspec.structs.replace(over, ending="")
    assert Patience().ends(over)
    assert lasts(Patience(for_job=True), clock, over, 5)
    assert Patience(for_job=True).ends(msgspec.structs.replace(over, job=None))


def test_a_run_that_slurm_can_start_again_is_waited_for(job: Job, says: Says, clock: Clock) -> None:
    says(squeue=RUNNING)
    progress(job.run_dir, silent_s=1)
    lost = record.Failure(message="node jw2 is lost", code=NODE_LOST)
    record.write(msgspec.structs.replace(failed(lost), plan=job.plan), job.run_dir)
    over = msgspec.structs.replace(looked(job), ending="")
    assert over.state == "finished"
    assert not lasts(Patience(for_job=True), clock, over, 3600)
