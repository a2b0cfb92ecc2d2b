"""An engine of a keeper: its process, and the log that its output goes to."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from sut.serving.keys import EngineKeys
from sut.serving.process import Command, EngineProcess, PartId

CHUNK = 2**16


class KeptEngine:
    """Its output is a pipe, because the log changes from one run to the next."""

    def __init__(self, part: PartId, command: Command, log: Path, keys: EngineKeys | None) -> None:
        """Raises RunError."""
        self.part = part
        self.process = EngineProcess(command, subprocess.PIPE, part[0], keys)
        self.output = self.process.output.fileno()
        self.ended = os.pidfd_open(self.process.pid)  # readable at its end
        self._log = _opened(log)
        os.set_blocking(self.output, False)

    def copy_output(self) -> bool:
        """Write what it has printed to its log; whether more may come."""
        with contextlib.suppress(BlockingIOError):
            while text := os.read(self.output, CHUNK):
                self._write(text)
            return False
        return True

    def log_to(self, log: Path, first_line: str) -> None:
        """Begin another log."""
        self.copy_output()
        os.close(self._log)
        self._log = _opened(log)
        self._write(f"{first_line}\n".encode())

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._log, text)


def _opened(log: Path) -> int:
    """The null device where the log cannot be written."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, flags, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
