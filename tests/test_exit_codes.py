"""The exit code of a command, whatever becomes of its output, its home folder and its signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import records
from cli import ROOT, environment, fast, until
from jobs import LONG, plan_for, write_plan

from sut.results import record
from sut.rundir import RunDir, tail

DIES = ["--set", "engine.replay.faults=[die@20]"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run_with(redirects: str, *words: str, cwd: Path, **variables: str) -> tuple[int, str]:
    """The exit code of ``python -m WORDS`` with a shell's redirects, and its standard error."""
    command = ["bash", "-c", f'"$@" {redirects}', "bash", sys.executable, "-m", *words]
    env = environment(**variables)
    done = subprocess.run(command, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(("code", "of_make"), [(0, 0), (1, 0), (2, 2), (3, 2)])
def test_make_demo_ends_with_0_for_each_verdict(code: int, of_make: int, tmp_path: Path) -> None:
    """make prints an error of its own for every other code of a command."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "--assume-old=build", "demo", f"PY={python}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == of_make, done.stderr
    assert ("INVALID is a result" in done.stderr) == (code == 1)
    assert ("Error" in done.stderr) == (code > 1)


LOST = [">/dev/full 2>&1", ">&- 2>&-", "> >(exec true) 2>&1"]


@pytest.mark.parametrize("redirects", LOST)
@pytest.mark.parametrize(("more", "code"), [([], 0), (DIES, 3)], ids=["valid", "failed"])
def test_a_runs_code_stands_without_its_output(
    redirects: str, more: list[str], code: int, tmp_path: Path
) -> None:
    assert run_with(redirects, "sut.submit", *fast(), *more, cwd=tmp_path)[0] == code
    assert record.read(tmp_path / "runs" / "latest").exit_code == code


@pytest.mark.parametrize(("faults", "code"), [("[]", 0), ("[die@20]", 3)])
@pytest.mark.parametrize("module", ["sut.run", "sut.job"])
def test_a_jobs_code_stands_without_its_output(
    module: str, faults: str, code: int, tmp_path: Path
) -> None:
    run_dir = write_plan(plan_for(1, f"engine.replay.faults={faults}"), tmp_path / "run")
    assert run_with(">/dev/full 2>&1", module, str(run_dir), cwd=tmp_path)[0] == code
    assert record.read(run_dir.record).exit_code == code


@pytest.fixture
def with_run(tmp_path: Path) -> Path:
    write_plan(plan_for(1), tmp_path / "runs" / "one")
    record.write(records.completed(), RunDir(tmp_path / "runs" / "one"))
    return tmp_path


@pytest.mark.parametrize("words", [["sut.history"], ["sut.list", "sites"], ["sut", "--help"]])
def test_a_lost_result_is_a_failure(words: list[str], with_run: Path) -> None:
    code, printed = run_with(">/dev/full", *words, cwd=with_run)
    assert code == 3
    assert printed == "error: cannot write to standard output: No space left on device\n"


def test_the_lost_output_of_a_run_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(
        "import time\nfrom sut.command import command_of_run\n"
        "@command_of_run\ndef main():\n time.sleep(0.2)\n print('VALID')\n return 1\n"
        "raise SystemExit(main())\n"
    )
    warning = "warning: output lost (standard output): No space left on device\n"
    assert run_with(">/dev/full", "short", cwd=tmp_path) == (1, warning)
    assert run_with("> >(exec true)", "short", cwd=tmp_path) == (1, "")


def test_a_closed_pipe_ends_a_list_silently(with_run: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sut.history"]
    done = subprocess.run(
        command, cwd=with_run, env=environment(), stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_error_keeps_its_code_without_standard_error(tmp_path: Path) -> None:
    assert run_with("2>/dev/full", "sut.verdict", "nothing", cwd=tmp_path)[0] == 2


def test_a_bug_is_a_failure(tmp_path: Path) -> None:
    code = "from sut.command import command\n@command\ndef main(): 1 / 0\nraise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stderr.endswith("error: internal error: ZeroDivisionError('division by zero')\n")


@as_root
@pytest.mark.parametrize(
    "words",
    [["sut.submit", "--config", "replay"], ["sut.submit", "--site", "jw", "--dry-run"]],
)
def test_a_user_without_a_home_gets_an_error(words: list[str], tmp_path: Path) -> None:
    """In a user namespace, where no passwd entry has the user's number."""
    env = environment()
    for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "SUT_CACHE"):
        env.pop(name, None)
    command = ["unshare", "--user", "--map-user=12345", sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot find the home folder (~/")
    assert "hint: export HOME=/path" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_before_the_run_has_handlers_is_kept(
    number: signal.Signals, tmp_path: Path
) -> None:
    run_dir = write_plan(plan_for(1, *LONG), tmp_path / "run")
    command = [sys.executable, "-m", "sut.job", str(run_dir)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as job:
        os.kill(child_of(job.pid), number)
        assert job.wait(60) == 3
    failure = record.read(run_dir.record).failure
    assert failure is not None
    assert failure.code == {"SIGTERM": "cancelled", "SIGUSR2": "truncated"}[number.name]


def test_the_end_of_a_log_is_read_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(2**43)  # a hole: no memory has room for it
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\n\nlast\n")
    assert tail(log, 2) == "last but one\nlast"


def test_the_end_of_a_short_log_is_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n\ntwo\n")
    assert tail(tmp_path / "log", 5) == "one\ntwo"
    assert tail(tmp_path / "none", 5) == ""


def test_the_process_that_waits_for_a_run_survives_its_signals(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, *LONG), tmp_path / "run")
    command = [sys.executable, "-m", "sut.job", str(run_dir)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as job:
        until(run_dir.progress.is_file)
        job.send_signal(signal.SIGTERM)
        os.kill(child_of(job.pid), signal.SIGUSR2)
        assert job.wait(60) == 3
    failure = record.read(run_dir.record).failure
    assert failure is not None and failure.code == "truncated"


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (pids := children.read_text().split()):
        time.sleep(0.0005)
    return int(pids[0])
