"""What killed engines leave in /dev/shm: real processes that share real segments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest
from cli import until

from sut.serving.process import Command, EngineProcess
from sut.serving.shared_memory import FOLDER

# Argument: a segment to share as well, or nothing. Prints the names of its own segments: one of
# which a child has the only mapping, and two semaphores: the child's, and one that only its maker
# has mapped, under another name: glibc links it to its name afterwards.
ENGINE = """
import multiprocessing, os, sys, time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

def child(lock, name):
    made = SharedMemory(create=True, size=4096)
    print(made.name, *(each.strip("/") for each in (lock._semlock.name, name)), flush=True)
    os.kill(os.getpid(), 19)
    time.sleep(600)

if __name__ == "__main__":
    given = [SharedMemory(name) for name in sys.argv[1:]]
    for each in given:  # else Python's tracker removes it as if this program had made it
        resource_tracker.unregister(each._name, "shared_memory")
    context = multiprocessing.get_context("spawn")
    lock, own = context.Lock(), context.Lock()
    context.Process(target=child, args=(lock, own._semlock.name)).start()
    time.sleep(600)
"""


def engine(tmp_path: Path, *given: str) -> tuple[EngineProcess, list[Path]]:
    program = tmp_path / "engine.py"
    program.write_text(ENGINE)
    command = Command(argv=(sys.executable, str(program), *given), env=dict(os.environ))
    process = EngineProcess(command, subprocess.PIPE, 0, None)
    names = process.output.readline().decode().split()
    assert len(names) == 3, names
    made = [FOLDER / names[0], *(FOLDER / f"sem.{name}" for name in names[1:])]
    assert all(each.exists() for each in made), made
    return process, made


@pytest.fixture
def earlier() -> Iterator[SharedMemory]:
    """A segment from before the engine's start, as of another program."""
    made = SharedMemory(create=True, size=4096)
    yield made
    made.close()
    made.unlink()


def test_a_killed_engine_leaves_none(tmp_path: Path, earlier: SharedMemory) -> None:
    process, made = engine(tmp_path, earlier.name)
    process.terminate()  # the child is stopped: it does not clean up
    process.stop(time.monotonic() + 0.2)
    until(lambda: not process.lives())
    assert [each for each in made if each.exists()] == []
    assert (FOLDER / earlier.name).exists()


def test_an_engine_that_something_else_killed_leaves_none(tmp_path: Path) -> None:
    """All its processes at once, so nothing of it is left to be looked at."""
    process, made = engine(tmp_path)
    process.note_shared_memory()
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not process.lives())
    assert any(each.exists() for each in made)
    process.stop(time.monotonic())
    assert [each for each in made if each.exists()] == []


def test_a_segment_that_another_process_uses_stays(tmp_path: Path) -> None:
    process, (shared, *semaphores) = engine(tmp_path)
    other = SharedMemory(shared.name)
    try:
        process.stop(time.monotonic())
        assert shared.exists() and not any(each.exists() for each in semaphores)
    finally:
        other.close()
        other.unlink()


def test_another_users_segment_stays(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing a file's owner needs root")
    process, (shared, *semaphores) = engine(tmp_path)
    os.chown(shared, 65534, -1)
    try:
        process.stop(time.monotonic())
        assert shared.exists() and not any(each.exists() for each in semaphores)
    finally:
        shared.unlink()


def test_a_file_that_replaced_one_stays(tmp_path: Path) -> None:
    process, (shared, *semaphores) = engine(tmp_path)
    process.terminate()
    shared.unlink()
    shared.write_bytes(b"another's")
    try:
        process.stop(time.monotonic())
        assert shared.read_bytes() == b"another's"
        assert not any(each.exists() for each in semaphores)
    finally:
        shared.unlink()
