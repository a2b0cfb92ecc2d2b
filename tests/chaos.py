"""Faults in a running system: what every run must do, and what it did."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from cli import ROOT, environment, processes_of, set_arguments, until

from sut.errors import EXIT_FAILED, InputError
from sut.plan.plan import Plan
from sut.results import record
from sut.results.progress import Line
from sut.results.record import Record
from sut.rundir import RunDir

# A /dev/shm that only a command and its children have. Mounts that the test makes later are not
# visible to them.
OWN_SHM = 'mount -t tmpfs -o size={size} tmpfs /dev/shm && {then} && exec "$@"'
# The replay benchmark with answers of some seconds, limits that any machine meets, and short
# deadlines. Its performance and accuracy tests last for a minute each if nothing ends them.
SLOW = (
    "scenarios.server.target_qps=20",
    "scenarios.server.min_duration_ms=60000",
    "scenarios.server.ttft_latency_ms=60000",
    "scenarios.server.tpot_latency_ms=60000",
    "site.timeouts.stall_s=6",
    "site.timeouts.warmup_s=20",
    "site.timeouts.ready_s=60",
    "site.timeouts.sample_s=60",
)
# Until a run reaches a stage, and a setting that keeps it there.
STAGES = {
    "load": ('engine.replay.faults=["never-ready"]', "site.timeouts.ready_s=8"),
    "warm-up": ('engine.replay.faults=["stall@4"]', "site.timeouts.warmup_s=8"),
    "performance": (),
    "accuracy": ("scenarios.server.min_duration_ms=500", "scenarios.server.max_query_count=10"),
}


FILLER = "filler"
# msgspec analyses a type at its first use, and crashes if two threads do so at once.
DECODERS = [msgspec.json.Decoder(each) for each in (record._Versioned, Record, Plan, Line)]


class Outcome(msgspec.Struct, frozen=True):
    """One fault in one stage, and what came of it."""

    fault: str
    stage: str
    exit_code: int
    status: str
    code: str  # of the record's failure
    took_s: float  # from the fault to the end of the command
    kept: str


class Running:
    """A run on this machine, followed by the command that started it."""

    def __init__(
        self,
        cwd: Path,
        stage: str,
        sets: Sequence[str],
        root: Path | None = None,
        *,
        env: Mapping[str, str] | None = None,
        config: str = "replay",
        options: Sequence[str] = (),
        within: Sequence[str] | None = None,
    ) -> None:
        """``options`` are further ones of sut.submit. ``within`` is what comes before the command;
        by default it gives the run a /dev/shm of its own, if this is root."""
        self.stage = stage
        mode = "all" if stage == "accuracy" else "performance"
        command = [sys.executable, "-m", "sut.submit", "--config", config, "--mode", mode]
        changes = [*SLOW, *sets]
        if root is not None:
            changes.append(f"site.run_root={root}")
        if within is None:
            within = own_shared_memory("1g") if os.geteuid() == 0 else ()
        self.process = subprocess.Popen(
            [*within, *command, "--scenario", "server", *options, *set_arguments(changes)],
            cwd=cwd,
            env=environment(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        latest = (root or cwd / "runs") / "latest"
        until(lambda: (latest / "progress.jsonl").is_file(), 120)
        self.run_dir = RunDir(latest.resolve())
        # Stays, with what the run leaves in it, until it is closed.
        self._shared_memory = os.open(f"/proc/{self.process.pid}/root/dev/shm", os.O_RDONLY)
        self._owns_shared_memory = "unshare" in within

    def is_there(self) -> bool:
        """Whether the run has reached the stage."""
        lines = self.lines()
        if self.stage in ("load", "warm-up", record.REPORT):
            at_it = any(line.stage == self.stage for line in lines)
            if self.stage == record.REPORT:  # which is announced before the record is complete
                return at_it and not record.read(self.run_dir.record).interim
            return at_it
        return any(line.phase == self.stage and line.completed for line in lines)

    def lines(self) -> list[Line]:
        whole = self.run_dir.progress.read_bytes().rpartition(b"\n")[0]
        return [msgspec.json.decode(line, type=Line) for line in whole.splitlines()]

    @cached_property
    def head(self) -> int:
        """The process id of the run itself."""
        (first, *_) = self.lines()
        assert first.pid is not None
        return first.pid

    @property
    def engine(self) -> int:
        """The first engine: the oldest process whose output is its log. vLLM changes its name, and
        its workers have the same log."""
        log, found = str(self.run_dir.replica_log(0)), []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/fd/1") == log:
                    found.append((process.create_time(), process.pid))
        assert found, f"no process writes {log}"
        return min(found)[1]

    def ended(self, fault: str, within_s: float) -> Outcome:
        """Wait for the command to end, and check what every run promises."""
        begin = time.monotonic()
        printed, _ = self.process.communicate(timeout=within_s)
        took_s = time.monotonic() - begin
        assert "Traceback" not in printed, printed
        until(lambda: processes_of(self.run_dir.root) == [], 10)
        if self._owns_shared_memory:
            left = [name for name in os.listdir(self._shared_memory) if name != FILLER]
            assert left == [], left
        return self.outcome(fault, took_s, self.process.returncode, printed)

    def outcome(self, fault: str, took_s: float, exit_code: int, printed: str) -> Outcome:
        try:
            found = record.read(self.run_dir.record)
        except InputError:  # nothing could be written: the command prints why
            assert exit_code == EXIT_FAILED and "error: " in printed, printed
            took_s = round(took_s, 1)
            return Outcome(fault, self.stage, exit_code, "no record", "", took_s, "logs")
        assert exit_code == found.exit_code, printed
        code = found.failure.code if found.failure else ""
        phases = ", ".join(phase.name for phase in found.phases)
        kept = [f"verdict of {phases}"] if phases else []
        logs = sorted(path.name for path in (self.run_dir.root / "logs").glob("*"))
        assert logs or self.stage == "preflight"  # no engine has started
        kept += ["logs"] if logs else []
        failed = dict.fromkeys(each.part for each in found.auxiliary_failures)
        kept += [f"warning of {', '.join(failed)}"] if failed else []
        return Outcome(
            fault, self.stage, exit_code, found.status, code, round(took_s, 1), ", ".join(kept)
        )

    def kill(self) -> None:
        """End what a failed check left."""
        for line in processes_of(self.run_dir.root):
            kill(int(line.partition(":")[0]), signal.SIGKILL)
        kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._shared_memory)


@contextmanager
def running(
    cwd: Path,
    stage: str,
    sets: Sequence[str] = (),
    root: Path | None = None,
    within_s: float = 120,
    **more: Any,
) -> Iterator[Running]:
    """A run that stays at a stage, reached ``within_s``. ``more`` is for :class:`Running`."""
    with started(cwd, stage, (*STAGES[stage], *sets), root, **more) as run:
        until(run.is_there, within_s)
        yield run


@contextmanager
def started(
    cwd: Path, stage: str, sets: Sequence[str] = (), root: Path | None = None, **more: Any
) -> Iterator[Running]:
    """A run that a fault in ``sets`` ends at a stage."""
    run = Running(cwd, stage, sets, root, **more)
    try:
        yield run
    finally:
        run.kill()


def own_shared_memory(size: str, then: str = "true") -> list[str]:
    """Before a command: its own /dev/shm of this size, after the shell command ``then``. Needs
    root."""
    return ["unshare", "--mount", "sh", "-c", OWN_SHM.format(size=size, then=then), "sh"]


def at_once(stages: Iterable[str], case: Callable[[str], Outcome]) -> list[Outcome]:
    """What comes of a case at each stage, in order. The runs go on at the same time: most of their
    time is waiting."""
    stages = list(stages)
    with ThreadPoolExecutor(len(stages)) as pool:
        return list(pool.map(case, stages))


def kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@contextmanager
def small_disk(folder: Path, size: str = "300m") -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Stalling:
    """A file system that stops answering, as a shared folder does whose server is unreachable:
    whoever reads or writes waits. Its files are in the folder ``behind`` too, which never stalls.
    """

    def __init__(self, folder: Path) -> None:
        self.behind, self.folder = folder / "behind", folder / "shared"
        self.behind.mkdir(parents=True)
        self.folder.mkdir()
        command = ["bindfs", "-f", str(self.behind), str(self.folder)]
        self._server = subprocess.Popen(command, start_new_session=True)

    def __enter__(self) -> Stalling:
        until(self.folder.is_mount)
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        self._server.wait()

    def stall(self) -> None:
        self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._server.send_signal(signal.SIGCONT)


def fill(folder: Path) -> Path:
    """Leave no space. Returns the file that took it."""
    filler = folder / FILLER
    dd = ["dd", "if=/dev/zero", f"of={filler}", "bs=64k"]
    assert b"No space left" in subprocess.run(dd, capture_output=True).stderr
    return filler


PAGE = ROOT / "docs" / "reliability.md"


def table_of(name: str) -> Callable[[pytest.FixtureRequest], Iterator[list[Outcome]]]:
    """A fixture: what happened in each case. It replaces the table between the page's comments
    ``name`` and ``end of name`` if ``SUT_RELIABILITY`` is set, unless a test failed."""

    def table(request: pytest.FixtureRequest) -> Iterator[list[Outcome]]:
        outcomes: list[Outcome] = []
        yield outcomes
        session = request.session
        interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED
        if not os.environ.get("SUT_RELIABILITY") or session.testsfailed or interrupted:
            return
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        with PAGE.open("r+") as page:
            fcntl.flock(page, fcntl.LOCK_EX)  # each test file writes its own table
            before, _, rest = page.read().partition(begin)
            page.seek(0)
            page.write(f"{before}{begin}\n{rows(outcomes)}\n{end}{rest.partition(end)[2]}")
            page.truncate()

    return table


def rows(outcomes: Sequence[Outcome]) -> str:
    lines = ["| fault | during | ended after | exit code | status | code | kept |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {each.fault} | {each.stage} | {each.took_s:.1f} s | {each.exit_code} | {each.status} | "
        f"{f'`{each.code}`' if each.code else ''} | {each.kept} |"
        for each in outcomes
    ]
    return "\n".join(lines) + "\n"
