"""The run directory: its paths, and atomic writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

SAMPLES = "samples.csv"
JOB, OLDER_JOB = "job", "slurm"
TRIAL = "trial-"  # begins the name of a trial's folder
STALE_S = 600.0  # what is written under a temporary name takes less
TAIL_BYTES = 64 * 1024
MIN_FREE = 256 * 2**20  # bytes, for the files of a run


class RunDir:
    """The paths of one run."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def command(self) -> Path:
        """The command that created the run; see :class:`sut.results.record.Command`."""
        return self.root / "command.json"

    @property
    def notices(self) -> Path:
        """Who is notified when the run ends; see :mod:`sut.launch.notices`."""
        return self.root / "notices.json"

    @property
    def user_conf(self) -> Path:
        return self.root / "user.conf"

    @property
    def job(self) -> Path:
        """submitit's files of the run's job or process, and its output. Some older runs have it as
        ``slurm``."""
        older = self.root / OLDER_JOB
        return older if older.is_dir() else self.root / JOB

    @property
    def submitter(self) -> Path:
        """The process that created the run; see :mod:`sut.cluster.liveness`."""
        return self.job / "submitter.json"

    @property
    def signalled(self) -> Path:
        """The process of the run on this machine that was asked to end; see
        :mod:`sut.launch.ending`."""
        return self.job / "signalled.json"

    @property
    def controller_log(self) -> Path:
        """Output of submitit's own process, for a job on this machine."""
        return self.job / "controller.log"

    def job_logs(self, node: int | None = None) -> list[Path]:
        """The output of the latest job, of all its nodes or of one by its index; on this machine
        also that of submitit's process."""
        logs = sorted(self.job.glob("*_log.out"), key=lambda log: log.stat().st_mtime_ns)
        job = logs[-1].name.removesuffix("_log.out").rpartition("_")[0] if logs else ""
        of_nodes = sorted(self.job.glob(f"{job}_{'*' if node is None else node}_log.out"))
        return [log for log in (*of_nodes, self.controller_log) if log.is_file()]

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def replica_log(self, index: int, part: int = 0) -> Path:
        """Output of a replica's process, or of one part of a replica on several nodes."""
        return self.logs / (f"replica-{index}.log" if part == 0 else f"replica-{index}.{part}.log")

    def engine_report(self, index: int, part: int = 0) -> Path:
        """The configuration of a replica's process; see :mod:`sut.serving.vllm_report`."""
        return self.replica_log(index, part).with_suffix(".json")

    def replica_logs(self) -> list[Path]:
        """The logs of every replica and part that has started."""
        return sorted(log for log in self.logs.glob("replica-*.log") if log.is_file())

    @property
    def keeper_log(self) -> Path:
        """Output of the process that keeps the engines for the next run."""
        return self.logs / "keeper.log"

    @property
    def attempts(self) -> Path:
        """The run's jobs, started and requeued, and how they ended."""
        return self.root / "attempts.json"

    @property
    def tuning(self) -> Path:
        """The state of a search for the highest load; see :mod:`sut.results.tuning`."""
        return self.root / "tuning.json"

    @property
    def claims(self) -> Path:
        """Which attempt owns the run directory; see :mod:`sut.cluster.claims`."""
        return self.root / "claims"

    def rendezvous(self, key: str) -> Path:
        """How the other nodes of a job connect to its head."""
        return self.root / "rendezvous" / f"{key}.json"

    def node_failure(self, key: str, node: str) -> Path:
        """Why a node other than the head could not start its part."""
        return self.rendezvous(key).with_suffix(f".{node}.failed")

    @property
    def loadgen_root(self) -> Path:
        """Parent of every phase's folder."""
        return self.root / "loadgen"

    def loadgen(self, phase: str) -> Path:
        """One phase's ``mlperf_log_*`` files."""
        return self.loadgen_root / phase

    def trial(self, number: int) -> Path:
        """The performance folder of an INVALID trial of a search, from 1."""
        return self.loadgen(f"{TRIAL}{number}")

    def user_conf_of(self, phase: str) -> Path:
        """LoadGen's settings of one test of a sweep, instead of ``user_conf``."""
        return self.loadgen(phase) / self.user_conf.name

    def audit_conf(self, phase: str) -> Path:
        """LoadGen's settings of a compliance test, in addition to ``user_conf``."""
        return self.loadgen(phase) / "audit.config"

    def samples(self, phase: str) -> Path:
        """Every completed sample of one phase; see :mod:`sut.results.sample_log`."""
        return self.loadgen(phase) / SAMPLES

    @property
    def progress(self) -> Path:
        """One JSON object a line, appended about once a second while a phase runs."""
        return self.root / "progress.jsonl"

    def telemetry(self, node: str) -> Path:
        """One node's meter readings, one JSON object a line; see :mod:`sut.machine.meters`."""
        return self.root / "telemetry" / f"{node}.jsonl"

    def telemetry_files(self) -> list[Path]:
        """The files of all nodes, named by node."""
        return sorted(self.telemetry("*").parent.glob("*.jsonl"))

    def evidence(self) -> Iterator[Path]:
        """The files on which a record is based."""
        for file in (
            self.plan,
            self.user_conf,
            self.command,
            self.attempts,
            self.progress,
            self.tuning,
        ):
            if file.is_file():
                yield file
        for folder in (self.loadgen_root, self.logs, self.telemetry("*").parent):
            for file in sorted(folder.rglob("[!.]*")):
                if file.is_file() and not file.is_symlink():
                    yield file

    @property
    def signature(self) -> Path:
        """An SSH signature of the record; see :mod:`sut.results.signature`."""
        return self.root / "record.json.sig"

    @property
    def record(self) -> Path:
        return self.root / "record.json"

    @property
    def report(self) -> Path:
        return self.root / "report.md"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    def __fspath__(self) -> str:
        return str(self.root)

    def __str__(self) -> str:
        return str(self.root)


class Outage(NamedTuple):
    """From the first failure to the last success after it, by :func:`time.monotonic`. ``end`` is
    None while nothing has worked since."""

    cause: str
    begin: float
    end: float | None = None


class Outages:
    """The time in which something failed, as one outage with the first cause."""

    def __init__(self) -> None:
        self.found: Outage | None = None

    def fails(self, cause: str) -> None:
        begun = self.found or Outage(cause, time.monotonic())
        self.found = begun._replace(end=None)

    def works(self) -> None:
        if self.found is not None and self.found.end is None:
            self.found = self.found._replace(end=time.monotonic())


class LineFile:
    """A file to append lines to, whose failure is not an error: a line that cannot be written is
    lost, and each later one is tried. The file is opened with its first line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._cut = False  # the file ends inside a line
        self._outages = Outages()

    @property
    def outage(self) -> Outage | None:
        """When lines were lost."""
        return self._outages.found

    def append(self, line: bytes) -> None:
        left = memoryview(b"\n" * self._cut + line + b"\n")
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            while left:
                left = left[self._file.write(left) :]
                self._cut = bool(left)
        except OSError as error:
            self._outages.fails(error.strerror or str(error))
        else:
            self._outages.works()


def tail(log: Path, num_lines: int) -> str:
    """The last non-blank lines in a log's last :data:`TAIL_BYTES`; empty if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-num_lines:])


def write_atomic(path: Path, data: str | bytes, mode: int = 0o600) -> None:
    """Write ``data`` to ``path`` so that a reader sees the complete old or new file. Raises
    OSError."""
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:  # it names the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove the temporary files and folders that killed processes have left in ``folder``."""
    for leftover in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - leftover.lstat().st_mtime <= STALE_S:
                continue
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
