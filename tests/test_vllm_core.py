"""A vLLM engine core in one process: what it is bound to, how it ends, when vLLM does it all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import environment, until
from plans import plan_of

from sut.inputs import model
from sut.serving import vllm_core

HEADLESS = [sys.executable, "-m", "sut.serving.vllm_core"]
# Starts an engine in a new session, as a run does, prints its process id and waits.
PARENT = """
import signal, subprocess, sys
engine = subprocess.Popen(sys.argv[1:], start_new_session=True)
print(engine.pid, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def model_path() -> Path:
    return model.locate(plan_of("smollm2-135m-news").model)


@pytest.fixture
def front_end() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(120)
        yield listener


def test_the_variables_are_those_of_vllms_own_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    bound = vllm_core._bound("0,3")
    assert bound is not None
    assert bound["OMP_NUM_THREADS"] == "2" and bound["GOMP_CPU_AFFINITY"] == "0 3"
    openmp = Path(bound["LD_PRELOAD"].split(":")[-1])
    assert openmp.name.startswith("libgomp") and openmp.is_file()


@pytest.mark.parametrize("bind", ["", "auto", "nobind", "all", "0-3", "0|1"])
def test_other_bindings_are_vllms_task(bind: str) -> None:
    assert vllm_core._bound(bind) is None


def test_a_users_libraries_are_vllms_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/lib/libiomp5.so")
    assert vllm_core._bound("0,1") is None


def test_libraries_that_vllm_has_set_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    bound = vllm_core._bound("0,1")
    assert bound is not None
    for libraries in (bound["LD_PRELOAD"], bound["LD_PRELOAD"].split(":")[-1]):
        monkeypatch.setenv("LD_PRELOAD", libraries)
        assert vllm_core._bound("0,1") == bound


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--uvicorn-log-level", "nonsense"], 2, "invalid choice: 'nonsense'"),
        (
            ["--data-parallel-size", "2", "--data-parallel-size-local", "0"],
            1,
            "data_parallel_size_local must be > 0 in headless mode",
        ),
    ],
)
def test_other_options_are_vllms_task(
    model_path: Path, options: list[str], code: int, text: str
) -> None:
    run = subprocess.run(
        [*HEADLESS, str(model_path), "--headless", *options],
        env=environment(VLLM_CPU_OMP_THREADS_BIND="0"),
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == code and text in run.stderr


@pytest.mark.vllm
def test_an_engine_that_loads_ends_with_its_parent(
    model_path: Path, front_end: socket.socket
) -> None:
    address, port = front_end.getsockname()
    words = [str(model_path), "--headless", "--data-parallel-rpc-port", str(port)]
    words += ["--max-model-len", "256", "--enforce-eager"]
    bound = environment(VLLM_CPU_OMP_THREADS_BIND="0", VLLM_DP_MASTER_IP=address)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *HEADLESS, *words],
        env=bound,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    engine = int(parent.stdout.readline())
    try:
        front_end.accept()  # it now waits for an answer, with its handler of SIGTERM
        parent.kill()
        parent.wait()
        until(lambda: _command(engine) == b"")
    finally:
        parent.kill()
        if _command(engine):
            os.kill(engine, signal.SIGKILL)


def _command(pid: int) -> bytes:
    """A process's command line; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
