"""What other programs do to this machine while a run measures."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sut.machine import processes

# Of /proc/stat's first line: user, nice, system, irq, softirq, steal (another virtual machine).
_BUSY = (0, 1, 2, 5, 6, 7)


class OtherWork:
    """The CPU time that this machine spends on other programs than ``roots`` and the processes
    that they started, from the creation of this object on."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = frozenset(roots)
        self._begin_s, self._begin_others_s = time.monotonic(), self._others_s()

    def cpus(self) -> float | None:
        """The mean number of cores; None if the system does not report it."""
        begin_s, now_s = self._begin_others_s, self._others_s()
        elapsed_s = time.monotonic() - self._begin_s
        if begin_s is None or now_s is None or elapsed_s <= 0:
            return None
        return round(max(0.0, (now_s - begin_s) / elapsed_s), 2)

    def _others_s(self) -> float | None:
        try:
            fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
            busy = sum(int(fields[place]) for place in _BUSY)
            own = sum(self._tree().values())
        except (OSError, ValueError, IndexError):
            return None
        return (busy - own) / os.sysconf("SC_CLK_TCK")

    def _tree(self) -> dict[int, int]:
        """The CPU time in ticks of each process of ours."""
        parents, ticks = {}, {}
        for pid, parent, used in _all():
            parents[pid], ticks[pid] = parent, used
        return {pid: used for pid, used in ticks.items() if self._is_ours(pid, parents)}

    def _is_ours(self, pid: int, parents: dict[int, int]) -> bool:
        while pid in parents:
            if pid in self._roots:
                return True
            pid = parents[pid]
        return False


def _all() -> Iterator[tuple[int, int, int]]:
    """Every process: its id, its parent, and its CPU time in ticks, of ended children too."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := processes.stat(int(entry.name))):
            yield int(entry.name), int(fields[1]), sum(map(int, fields[11:15]))
