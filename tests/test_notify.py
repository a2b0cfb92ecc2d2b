"""The command of --notify runs at a run's end, whatever the end, and never changes it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import records
from cli import ROOT, environment, fast, processes_of, submit, until
from cluster.cluster import Cluster
from on_cluster import replay, sbatch
from on_cluster import submit as submit_job
from on_cluster import until as until_on_cluster
from plans import plan_of

from sut import cancel, notify, requeue
from sut.errors import InputError
from sut.launch import newrun, notices
from sut.launch.notices import Notices
from sut.launch.request import RunRequest, make_plan
from sut.plan.plan import Mode
from sut.results import record
from sut.results.record import Attempt, Failure
from sut.rundir import RunDir
from sut.watch.notify import LIMIT_S, facts, send

# Writes the facts of the run and its standard input as one JSON object.
TELL = """python3 -c 'import json, os, sys
facts = {k: v for k, v in os.environ.items() if k.startswith("SUT_")} | {"stdin": sys.stdin.read()}
open(sys.argv[1], "w").write(json.dumps(facts))' """

WAITING = f"finished: VALID; waiting for the --notify command, at most {LIMIT_S:g} s"


def tell(file: Path) -> str:
    return TELL + shlex.quote(str(file))


def notified(file: Path) -> dict[str, str]:
    until(lambda: file.is_file() and file.read_text())
    found: dict[str, str] = json.loads(file.read_text())
    assert found["stdin"] == f"{found['SUT_SUMMARY']}\n" and found["SUT_SUMMARY"].count("\n") == 0
    return found


def test_gets_the_facts_of_a_run(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--notify", tell(tmp_path / "notified"))
    assert run.returncode == 0, run.stderr
    run_dir = RunDir(tmp_path / "runs" / "latest")
    facts = notified(tmp_path / "notified")
    assert facts["SUT_RUN_DIR"] == str(run_dir) and facts["SUT_RUN"] == run_dir.root.name
    assert (facts["SUT_VERDICT"], facts["SUT_STATUS"]) == ("VALID", "completed")
    assert (facts["SUT_EXIT_CODE"], facts["SUT_FAILURE"], facts["SUT_REASONS"]) == ("0", "", "")
    assert Path(facts["SUT_RECORD"]).is_file() and Path(facts["SUT_REPORT"]).is_file()
    assert facts["SUT_SUMMARY"].startswith("VALID  replay, server, smoke preset, 1 replica: ")
    assert "tokens/s, TTFT p99 " in facts["SUT_SUMMARY"]
    # The run's plan is the same without it; its file may hold a secret.
    assert "notified" not in run_dir.plan.read_text()
    assert stat.S_IMODE(run_dir.notices.stat().st_mode) == 0o600


def test_runs_after_an_invalid_run_that_nobody_follows(tmp_path: Path) -> None:
    arguments = ("--config", "replay", "--preset", "quick", "--no-wait")
    submit(tmp_path, *arguments, "--notify", tell(tmp_path / "notified"))
    facts = notified(tmp_path / "notified")
    assert (facts["SUT_VERDICT"], facts["SUT_EXIT_CODE"]) == ("INVALID", "1")
    assert "early_stopping" in facts["SUT_REASONS"].split(",")
    summary = facts["SUT_SUMMARY"]
    assert summary.startswith("INVALID  replay") and "not met: " in summary


def test_runs_after_a_failed_run(tmp_path: Path) -> None:
    fault = ("--set", "engine.replay.faults=[die@5]")
    run = submit(tmp_path, *fast(), *fault, "--notify", tell(tmp_path / "notified"))
    assert run.returncode == 3, run.stdout
    facts = notified(tmp_path / "notified")
    assert (facts["SUT_VERDICT"], facts["SUT_STATUS"]) == ("", "failed")
    assert (facts["SUT_EXIT_CODE"], facts["SUT_FAILURE"]) == ("3", "engine_died")
    assert facts["SUT_SUMMARY"].startswith("FAILED  replay") and ": engine_died: " in facts["stdin"]


def test_runs_after_a_cancelled_run(tmp_path: Path) -> None:
    long = ("--set", "min_duration_ms=60000", "--no-wait")
    submit(tmp_path, *fast(), *long, "--notify", tell(tmp_path / "notified"))
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert cancel.main([str(run_dir)]) == 0
    assert notified(tmp_path / "notified")["SUT_FAILURE"] == "cancelled"
    until(lambda: not processes_of(run_dir.root))


def test_a_failing_command_does_not_change_the_run(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--notify", "echo to the log; echo and errors >&2; exit 7")
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert run.returncode == record.read(run_dir.record).exit_code == 0
    (log,) = run_dir.job.glob("*_log.out")
    problem = "--notify command failed: exit code 7"
    warning = f"warning: {problem} (its output: {log})\n"
    again = f"python -m sut.notify {run_dir}"
    assert run.stderr == f"{warning}hint: to run it again: {again}\n"
    watched = subprocess.run(
        [sys.executable, "-m", "sut.watch", str(run_dir)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert watched.returncode == 0 and watched.stderr == run.stderr
    lines = log.read_text().splitlines()
    assert {"to the log", "and errors", problem} <= set(lines)


def test_the_follower_says_that_it_waits_for_the_command(tmp_path: Path) -> None:
    condition = f"until grep -q 'waiting for the --notify' {tmp_path}/stdout; do sleep 0.1; done"
    with (tmp_path / "stdout").open("w") as stdout:
        argv = [sys.executable, "-m", "sut.submit", *fast(), "--notify", condition]
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment(), stdout=stdout, stderr=subprocess.PIPE
        )
    assert (tmp_path / "stdout").read_text().count(WAITING) == 1
    (log,) = RunDir(tmp_path / "runs" / "latest").job.glob("*_log.out")
    assert done.returncode == 0 and "--notify command finished" in log.read_text()


def test_ctrl_c_does_not_cancel_a_run_that_has_its_result(tmp_path: Path) -> None:
    release = tmp_path / "release"
    command = f"until [ -e {release} ]; do sleep 0.1; done"
    with (tmp_path / "stdout").open("w+") as stdout:
        argv = [sys.executable, "-m", "sut.submit", *fast(), "--notify", command]
        run = subprocess.Popen(
            argv, cwd=tmp_path, env=environment(), stdout=stdout, stderr=subprocess.PIPE, text=True
        )
        until(lambda: WAITING in (tmp_path / "stdout").read_text())
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        told = (run.stderr.readline(), run.stderr.readline())
        release.touch()
        run.communicate(timeout=30)
    assert told == ("\n", f"the run has its result and is not cancelled; {WAITING[17:]}\n")
    assert run.returncode == 0 and "VALID  replay" in (tmp_path / "stdout").read_text()


def test_refuses_a_run_without_a_command(ended: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert notify.main([str(ended)]) == 2
    error = capsys.readouterr().err
    assert f"run {ended.root.name} has no --notify command" in error and "hint: " in error


@pytest.fixture
def ended(tmp_path: Path) -> RunDir:
    """A completed run without a command."""
    run_dir = newrun.create(plan_of("replay"), tmp_path / "runs")
    record.write(records.completed(), run_dir)
    return run_dir


def set_command(run_dir: RunDir, command: str) -> None:
    notices.write(Notices(command=command), run_dir)


def test_ends_a_command_that_hangs(
    ended: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_command(ended, f"sleep 999 & echo $! >{tmp_path}/pid; wait")
    send(ended, limit_s=1)
    assert capfd.readouterr().err.endswith("--notify command failed: ended after 1 s\n")
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/cmdline")
    until(lambda: not child.is_file() or not child.read_bytes())


def test_a_command_handles_sigterm_as_usual(
    ended: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    set_command(ended, "kill -TERM $$")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send(ended)
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN
    assert capfd.readouterr().err.endswith("--notify command failed: exit code -15\n")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("exec <&-; exit 0", "finished"),
        ("no-such-program", "failed: exit code 127"),
        ("kill -9 $$", "failed: exit code -9"),
        ("a\0b", "failed: embedded null byte"),
    ],
)
def test_reports_how_the_command_ended(
    command: str, line: str, ended: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    set_command(ended, command)
    failed = line != "finished"
    assert notify.main([str(ended)]) == (3 if failed else 0)
    shown, _, hint = capfd.readouterr().err.partition("hint: ")
    assert shown.endswith(f"--notify command {line}\n") and (str(ended.notices) in hint) == failed


def test_a_run_without_a_record_has_failed(ended: RunDir) -> None:
    ended.record.unlink()
    found = facts(ended)
    assert (found["SUT_VERDICT"], found["SUT_STATUS"]) == ("", "failed")
    assert found["SUT_EXIT_CODE"] == "3" and "ended without a record" in found["SUT_SUMMARY"]


def test_a_damaged_file_is_an_error(ended: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    ended.notices.write_text("{")
    assert notify.main([str(ended)]) == 2
    assert f"cannot read whom to notify ({ended.notices})" in capsys.readouterr().err


def site_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{text}")
    return str(path)


def test_the_option_has_precedence_over_the_site(tmp_path: Path) -> None:
    def of(**changes: object) -> Notices:
        request = RunRequest(benchmark="replay", site=site, **changes)  # type: ignore[arg-type]
        return make_plan(request)[2]

    site = site_of(tmp_path, "notify: from the site\n")
    assert of().command == "from the site"
    assert of(notify="given").command == "given" and of(notify="").command == ""
    assert of(mode=Mode.PREFLIGHT) == Notices()
    plans = [
        make_plan(RunRequest(benchmark="replay", site=site, notify=n))[0] for n in (None, "", "x")
    ]
    assert len({plan.digest() for plan in plans}) == 1


def test_slurms_mail_comes_from_the_site(tmp_path: Path) -> None:
    text = (ROOT / "configs/sites/devcluster.yaml").read_text().partition("name: devcluster\n")[2]
    text = text.replace("slurm:\n", "slurm:\n  mail_type: END,FAIL\n  mail_user: me@here\n")
    plan, _, found = make_plan(RunRequest(benchmark="replay", site=site_of(tmp_path, text)))
    assert (found.mail_type, found.mail_user) == ("END,FAIL", "me@here")
    assert "mail" not in msgspec.json.encode(plan).decode()


def test_again_notifies_as_before(tmp_path: Path) -> None:
    submit(tmp_path, *fast(), "--notify", tell(tmp_path / "first"))
    (tmp_path / "first").unlink()
    assert submit(tmp_path, "--again", "latest").returncode == 0
    notified(tmp_path / "first")
    assert submit(tmp_path, "--again", "latest", "--notify", tell(tmp_path / "x")).returncode == 0
    notified(tmp_path / "x")


@pytest.mark.parametrize(
    ("code", "attempt", "preempted", "is_notified"),
    [
        ("node_lost", 0, "None", False),
        ("node_lost", 2, "None", True),
        ("engine_died", 0, "None", True),
        ("cancelled", 0, "2026-01-01T00:00:00", False),
    ],
)
def test_a_job_that_continues_does_not_notify(
    code: str,
    attempt: int,
    preempted: str,
    is_notified: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho JobId=7 PreemptTime={preempted}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    for name, value in (("JOB_ID", "7"), ("RESTART_COUNT", str(attempt))):
        monkeypatch.setenv(f"SLURM_{name}", value)
    run_dir = newrun.create(plan_of("replay", site="devcluster"), tmp_path / "runs")
    set_command(run_dir, f"touch {tmp_path}/notified")
    failure = Failure(code=code, message="why")
    last = Attempt(job_id="7", restart=attempt, nodes=("jw2",), started_utc="", failure=failure)
    record.write(msgspec.structs.replace(records.failed(failure), attempts=(last,)), run_dir)
    assert requeue.main([str(run_dir)]) == 0
    assert (tmp_path / "notified").exists() == is_notified


def test_cannot_change_an_existing_run(capsys: pytest.CaptureFixture[str]) -> None:
    from sut import batch

    with pytest.raises(SystemExit, match="2"):
        batch.main(["latest", "--notify", "true"])
    assert "options cannot change it" in capsys.readouterr().err


def test_refuses_a_file_that_cannot_be_read(ended: RunDir) -> None:
    ended.notices.mkdir()
    with pytest.raises(InputError, match="cannot read whom to notify"):
        notices.read(ended)


def notified_on(cluster: Cluster, name: str) -> dict[str, str]:
    file = cluster.home() / name
    until_on_cluster(lambda: file.is_file() and bool(file.read_text()), 90)
    return notified(file)


def test_runs_after_a_job_and_a_batch_script(idle: Cluster) -> None:
    run = submit_job(idle, *replay(1), "--nodes", "jw2", "--notify", tell(Path("/home/bench/one")))
    facts = notified_on(idle, "one")
    assert facts["SUT_VERDICT"] == "VALID" and facts["SUT_RUN_DIR"] == run.name
    assert facts["SUT_NODE"] == "jw2" and run.end() == "COMPLETED"
    assert "--notify command finished" in (run.dir.job / f"{run.job_id}_0_log.out").read_text()
    words = shlex.join([*replay(1), "--notify", tell(Path("/home/bench/two"))])
    done = sbatch(idle, f"/opt/mlperf-sut/slurm/multi.sh {words}")
    assert done.exit_code == 0 and "--notify command finished" in done.output
    assert notified_on(idle, "two")["SUT_VERDICT"] == "VALID"


def test_runs_after_scancel(idle: Cluster) -> None:
    run = submit_job(
        idle, *replay(60), "--nodes", "all", "--notify", tell(Path("/home/bench/three"))
    )
    until_on_cluster(run.has_measured)
    idle.run(f"scancel {run.job_id}")
    facts = notified_on(idle, "three")
    assert (facts["SUT_FAILURE"], facts["SUT_EXIT_CODE"]) == ("cancelled", "3")


@pytest.mark.long
def test_a_preempted_job_notifies_at_its_last_end(idle: Cluster) -> None:
    command = 'echo "$SUT_VERDICT$SUT_FAILURE" >>~/four'
    low = ("--set", "site.slurm.qos=low", "--notify", command)
    run = submit_job(idle, *replay(15), "--nodes", "jw2", *low)
    until_on_cluster(run.has_measured)
    idle.run("sbatch --qos=high --nodelist=jw2 --exclusive --wrap 'sleep 1'")
    until_on_cluster(lambda: run.state() == "COMPLETED", 240)
    assert len(run.record().attempts) == 2
    assert (idle.home() / "four").read_text() == "VALID\n"


def test_slurm_gets_the_sites_mail_options(idle: Cluster) -> None:
    mail = ("--set", "site.slurm.mail_type=END", "--set", "site.slurm.mail_user=me@here")
    run = submit_job(idle, *replay(1), "--nodes", "jw2", *mail, "--begin", "now+1hour")
    shown = idle.run(f"scontrol show job {run.job_id}").stdout
    assert "MailUser=me@here MailType=END" in shown
    idle.run(f"scancel {run.job_id}")
