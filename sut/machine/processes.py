"""Processes of this machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def running(module: str, argument: str) -> int | None:
    """The process ``python -m MODULE ARGUMENT`` of this machine, also one in a container; None if
    there is none. Of its forked children, which look the same, it is the parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        if arguments(int(entry.name))[1:] == ["-m", module, argument]:
            found[int(entry.name)] = _parent(int(entry.name))
    return min((pid for pid, parent in found.items() if parent not in found), default=None)


def arguments(pid: int) -> list[str]:
    """A process's command line; empty if it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return words.decode(errors="replace").split("\0")[:-1]


def _parent(pid: int) -> int:
    fields = stat(pid)
    return int(fields[1]) if fields else 0


def age_s() -> float:
    """Time since this process started, its imports included; 0 if the system does not say."""
    fields = stat(os.getpid())
    if not fields:
        return 0.0
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since boot
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)


def stat(pid: int) -> list[str]:
    """The fields of its ``stat`` after its name, which may contain spaces; empty if it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of this signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = status.partition("\nSigCgt:")[2].split(maxsplit=1)[0]
    return bool(int(caught, 16) >> (number - 1) & 1)
