"""Other programs on the machine of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from cli import fast, latest, set_arguments, submit
from loadgen_logs import smallest_valid
from records import completed, performance

from sut.machine.other_work import OtherWork
from sut.plan.site import Device
from sut.report.summary import MANY_CPUS, busy
from sut.results.record import Record

SPIN = [sys.executable, "-c", "while True: pass"]


@contextmanager
def spinning() -> Iterator[int]:
    process = subprocess.Popen(SPIN)
    try:
        time.sleep(0.5)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_counts_other_programs_and_not_ours() -> None:
    """Two looks at the same time, so that the rest of the machine is in both."""
    with spinning() as pid:
        with_it, without_it = OtherWork([os.getpid()]), OtherWork([os.getpid() + 10**7])
        own_s = cpu_s(pid)
        time.sleep(2)
        used = cpu_s(pid) - own_s
        ours, all_ = with_it.cpus(), without_it.cpus()
    assert ours is not None and all_ is not None and used > 0.1
    assert all_ - ours == pytest.approx(used / 2, abs=0.2)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_run_records_them(tmp_path: Path) -> None:
    with spinning():
        run = submit(tmp_path, *fast(), *set_arguments(["scenarios.server.min_duration_ms=2000"]))
    (phase,) = latest(tmp_path).phases
    assert phase.other_cpus is not None and phase.other_cpus > 0.1, run.stdout


def judged(verdict: str, other_cpus: float | None, device: Device = Device.CPU) -> Record:
    phase = performance(smallest_valid())
    changed = msgspec.structs.replace(phase.verdict, verdict=verdict)
    record = completed(msgspec.structs.replace(phase, verdict=changed, other_cpus=other_cpus))
    plan = msgspec.structs.replace(record.plan, device=device)
    environment = msgspec.structs.replace(record.environment, num_cpus=2)
    return msgspec.structs.replace(record, plan=plan, environment=environment)


def test_an_invalid_phase_names_a_busy_machine() -> None:
    record = judged("INVALID", 0.98)
    text = "other programs used 0.98 of 2 cores during performance: stop them, or offer less load"
    assert busy(record, record.phases[0]) == [text]


@pytest.mark.parametrize(
    "record",
    [
        judged("VALID", 0.98),
        judged("INVALID", None),
        judged("INVALID", MANY_CPUS - 0.01),
        judged("INVALID", 0.98, Device.CUDA),
    ],
)
def test_nothing_is_said_where_it_does_not_matter(record: Record) -> None:
    assert busy(record, record.phases[0]) == []
