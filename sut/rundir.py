"""The run directory: one class names every path in it, and writes are atomic."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SAMPLES = "samples.csv"


class RunDir:
    """Paths of one run."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def user_conf(self) -> Path:
        return self.root / "user.conf"

    @property
    def slurm(self) -> Path:
        """Where submitit keeps a job's files and output."""
        return self.root / "slurm"

    @property
    def controller_log(self) -> Path:
        """What submitit's own process says, of a job on this machine."""
        return self.slurm / "controller.log"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def replica_log(self, index: int, part: int = 0) -> Path:
        """What a replica's process says; of one on several nodes, each part's."""
        return self.logs / (f"replica-{index}.log" if part == 0 else f"replica-{index}.{part}.log")

    def replica_logs(self) -> list[Path]:
        """Those of every replica and part that has begun."""
        return sorted(log for log in self.logs.glob("replica-*.log") if log.is_file())

    @property
    def attempts(self) -> Path:
        """What was tried to carry the run out: begun and requeued jobs, and how they ended."""
        return self.root / "attempts.json"

    def rendezvous(self, key: str) -> Path:
        """Where the head of a job tells its other nodes how to reach it."""
        return self.root / "rendezvous" / f"{key}.json"

    @property
    def loadgen_root(self) -> Path:
        """Folder of every phase's folder."""
        return self.root / "loadgen"

    def loadgen(self, phase: str) -> Path:
        """Folder of one phase's ``mlperf_log_*`` files."""
        return self.loadgen_root / phase

    @property
    def audit_conf(self) -> Path:
        """What LoadGen is told for the compliance test, on top of ``user_conf``."""
        return self.loadgen("compliance") / "audit.config"

    def samples(self, phase: str) -> Path:
        """Every completed sample of one phase; see :mod:`sut.results.sample_log`."""
        return self.loadgen(phase) / SAMPLES

    @property
    def progress(self) -> Path:
        """One JSON object a line, appended about once a second while a phase runs."""
        return self.root / "progress.jsonl"

    def telemetry(self, node: str) -> Path:
        """What one node's meters said, one JSON object a line; see :mod:`sut.machine.meters`."""
        return self.root / "telemetry" / f"{node}.jsonl"

    def telemetry_files(self) -> list[Path]:
        """Those of all nodes, named by their nodes."""
        return sorted(self.telemetry("*").parent.glob("*.jsonl"))

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


def tail(log: Path, num_lines: int) -> str:
    """The last lines of a log that are not blank; empty where there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-num_lines:])


def write_atomic(path: Path, data: str | bytes, mode: int = 0o644) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, whole."""
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
