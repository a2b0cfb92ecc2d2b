"""Faults at every stage of a run with the replay engine. ``make chaos`` runs all and writes
docs/reliability.md; ``make test`` runs those that are not marked."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import chaos
import pytest
from chaos import STAGES, Outcome, Running, kill, running, started
from cli import environment, fast, processes_of, until

from sut.results import attempts
from sut.rundir import RunDir

MEASURING = ("performance", "accuracy")
SHORT = ("scenarios.server.min_duration_ms=5000",)


table = pytest.fixture(chaos.table_of("one machine"), scope="module")


def every_stage(*marked: str) -> Callable[[object], object]:
    """Cases of all stages; ``marked`` are those of ``make chaos`` only."""
    stages = [
        pytest.param(stage, marks=[pytest.mark.chaos] if stage in marked else [])
        for stage in STAGES
    ]
    return pytest.mark.parametrize("stage", stages)


@every_stage("warm-up", "accuracy")
def test_engine_killed(tmp_path: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage) as run:
        kill(run.engine, signal.SIGKILL)
        found = run.ended("engine killed", 20)
    assert (found.exit_code, found.code) == (3, "engine_died")
    table.append(found)


STOPPED = {"load": "not_ready", "warm-up": "warm_up", "performance": "stall", "accuracy": "stall"}


@every_stage("warm-up", "accuracy")
def test_engine_stopped(tmp_path: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage) as run:
        kill(run.engine, signal.SIGSTOP)
        found = run.ended("engine stopped", 40)
    assert (found.exit_code, found.code) == (3, STOPPED[stage])
    table.append(found)


@pytest.mark.chaos
@pytest.mark.parametrize("stage", MEASURING)
def test_engine_stopped_and_resumed(tmp_path: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage, SHORT if stage == "performance" else ()) as run:
        engine = run.engine
        kill(engine, signal.SIGSTOP)
        time.sleep(1.5)
        kill(engine, signal.SIGCONT)
        found = run.ended("engine stopped for 1.5 s", 200)
    assert found.status == "completed" and found.exit_code in (0, 1)
    table.append(found)


@pytest.mark.chaos
@pytest.mark.parametrize("stage", STAGES)
def test_run_killed(tmp_path: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage) as run:
        kill(run.head, signal.SIGKILL)
        found = run.ended("run killed", 20)
    assert (found.exit_code, found.code) == (3, "no_record")
    table.append(found)


@pytest.mark.chaos
def test_command_killed(tmp_path: Path, table: list[Outcome]) -> None:
    """The run outlives the command that started it."""
    with running(tmp_path, "performance", SHORT) as run:
        begin = time.monotonic()
        kill(run.process.pid, signal.SIGKILL)
        until(lambda: attempts.has_record(run.run_dir), 60)
        until(lambda: processes_of(run.run_dir.root) == [], 20)
        took_s = time.monotonic() - begin
        found = run.outcome("command killed", took_s, 0, "")
    assert found.status == "completed"
    table.append(found)


SIGNALS: dict[str, tuple[Callable[[Running], None], str, str]] = {
    "SIGTERM to the command": (lambda run: kill(run.process.pid, signal.SIGTERM), "", "cancelled"),
    "Ctrl-C": (lambda run: os.killpg(run.process.pid, signal.SIGINT), "", "cancelled"),
    "SIGTERM to the run": (lambda run: kill(run.head, signal.SIGTERM), "", "cancelled"),
    "SIGUSR2 to the run (wall limit)": (
        lambda run: kill(run.head, signal.SIGUSR2),
        "truncated",
        "truncated",
    ),
}


@pytest.mark.chaos
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SIGNALS)
def test_signal(tmp_path: Path, table: list[Outcome], stage: str, name: str) -> None:
    send, status, code = SIGNALS[name]
    with running(tmp_path, stage) as run:
        send(run)
        found = run.ended(name, 20)
    assert (found.exit_code, found.status, found.code) == (3, status or "failed", code)
    table.append(found)


@pytest.mark.chaos
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_twice(tmp_path: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage) as run:
        for _ in range(2):
            os.killpg(run.process.pid, signal.SIGINT)
            time.sleep(0.2)
        found = run.ended("Ctrl-C twice", 20)
    assert (found.exit_code, found.code) == (3, "cancelled")
    table.append(found)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    dd = ["dd", "if=/dev/zero", f"of={folder / 'filler'}", "bs=64k"]
    assert b"No space left" in subprocess.run(dd, capture_output=True).stderr


@pytest.mark.chaos
@pytest.mark.parametrize("stage", STAGES)
def test_disk_full(tmp_path: Path, disk: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage, SHORT if stage == "performance" else (), root=disk) as run:
        fill(disk)
        found = run.ended("disk of the run full", 200)
    assert found.exit_code == 3
    table.append(found)


@pytest.mark.chaos
@pytest.mark.parametrize("stage", STAGES)
def test_disk_read_only(tmp_path: Path, disk: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage, SHORT if stage == "performance" else (), root=disk) as run:
        # New files only: a file system with open files cannot become read-only.
        subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
        try:
            found = run.ended("folder of the run read-only", 200)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert found.exit_code == 3
    table.append(found)


@pytest.mark.chaos
def test_shared_memory_full(tmp_path: Path, table: list[Outcome]) -> None:
    filler = chaos.SHARED_MEMORY / "filler"
    room = shutil.disk_usage(chaos.SHARED_MEMORY).free
    if room > 2 << 30:
        pytest.skip("/dev/shm is too large to fill")
    with running(tmp_path, "performance", SHORT) as run:
        try:
            fill(chaos.SHARED_MEMORY)
            found = run.ended("/dev/shm full", 100)
        finally:
            filler.unlink()
    assert found.status == "completed"
    table.append(found)


DIED = "engine_died"
FRAMES = {
    "die": DIED,
    "dead": "engine_dead",
    "stall": "stall",
    "error": "request_failed",
    "garbage": "protocol_error",
    "truncate": "protocol_error",
    "unknown-id": "protocol_error",
    "reset-input": "connection_lost",
    "reset-output": "connection_lost",
}
AFTER = {"warm-up": 4, "performance": 40, "accuracy": 60}  # completed requests of the engine


@pytest.mark.chaos
@pytest.mark.parametrize("stage", AFTER)
@pytest.mark.parametrize("fault", FRAMES)
def test_engines_fault(tmp_path: Path, table: list[Outcome], stage: str, fault: str) -> None:
    sets = [f"engine.replay.faults=[{fault}@{AFTER[stage]}]"]
    sets += STAGES["accuracy"] if stage == "accuracy" else ()
    with started(tmp_path, stage, sets) as run:
        found = run.ended(f"engine: `{fault}`", 60)
    code = "warm_up" if (fault, stage) == ("stall", "warm-up") else FRAMES[fault]
    assert found.exit_code == 3 and found.code in (code, DIED if fault == "dead" else code)
    table.append(found)


@pytest.mark.chaos
def test_second_attempt(tmp_path: Path, table: list[Outcome]) -> None:
    with running(tmp_path, "performance", SHORT) as run:
        second = subprocess.run(
            [sys.executable, "-m", "sut.job", str(run.run_dir)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 2, second.stdout + second.stderr
        found = run.ended("second run in the same folder (refused)", 100)
    assert found.status == "completed"
    table.append(found)


@pytest.mark.chaos
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_signal_at_a_random_moment(tmp_path: Path, number: signal.Signals) -> None:
    """The command ends soon, and what it left has a record or no folder."""
    seed = time.time_ns()
    print(f"seed {seed}")
    moments = random.Random(seed)
    for attempt in range(10):
        cwd = tmp_path / str(attempt)
        cwd.mkdir()
        run = subprocess.Popen(
            [sys.executable, "-m", "sut.submit", *fast()],
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        time.sleep(moments.uniform(0.0, 3.0))
        with_group = number is signal.SIGINT
        try:
            os.killpg(run.pid, number) if with_group else run.send_signal(number)
        except ProcessLookupError:
            continue
        printed, _ = run.communicate(timeout=20)
        for folder in cwd.glob("runs/2*"):
            if folder.is_dir() and not folder.is_symlink():
                until(lambda folder=folder: attempts.has_record(RunDir(folder)), 20)
                until(lambda folder=folder: processes_of(folder) == [], 20)
        assert run.returncode in (0, 3, 130, -number), printed
