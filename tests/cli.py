"""Commands as a user types them, and the runs they create."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import sut
from sut.results import record

ROOT = Path(sut.__file__).resolve().parent.parent

# The replay benchmark in about a second, with limits that a busy machine meets.
FAST = {
    "server": ["target_qps=800", "min_duration_ms=500"],
    "interactive": [
        "target_qps=800",
        "min_duration_ms=500",
        "ttft_latency_ms=500",
        "tpot_latency_ms=50",
    ],
    "offline": ["target_qps=10000", "min_duration_ms=500"],
    "singlestream": ["target_latency_ms=10", "min_duration_ms=500"],
}


# A limit that a busy machine meets, for tests of something else that need a VALID run.
ROOM = ("--set", "scenarios.server.ttft_latency_ms=5000")


def fast(scenario: str = "server") -> list[str]:
    """Arguments for a short run of the replay benchmark."""
    sets = [f"scenarios.{scenario}.{change}" for change in FAST[scenario]]
    sets += ["engine.replay.step_base_us=200", "engine.replay.step_per_sequence_us=0"]
    sets += ["engine.replay.prefill_tokens_per_s=10000000"]
    return ["--config", "replay", "--scenario", scenario, *set_arguments(sets)]


def set_arguments(sets: Sequence[str]) -> list[str]:
    return [word for change in sets for word in ("--set", change)]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **changes}


def submit(
    cwd: Path,
    *arguments: str,
    timeout_s: float = 120,
    env: dict[str, str] | None = None,
    command: str = "submit",
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sut.submit ARGUMENTS``, or another command, in ``cwd`` and wait."""
    return subprocess.run(
        [sys.executable, "-m", f"sut.{command}", *arguments],
        cwd=cwd,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def latest(cwd: Path) -> record.Record:
    """The record of the newest run under ``cwd``."""
    return record.read(cwd / "runs" / "latest")


def processes_of(run_dir: Path) -> list[str]:
    """Command lines of live processes that belong to a run, by their environment or arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            files = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
        except OSError:
            continue
        if str(run_dir) in words or any(str(run_dir) in file for file in files):
            found.append(f"{entry.name}: {words}")
    return found


def until(true: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not true within {timeout_s} s"
        time.sleep(0.05)
