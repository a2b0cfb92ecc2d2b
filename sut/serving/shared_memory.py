"""The shared memory of an engine's processes, removed after their end.

Ranks of one replica exchange data in files of ``/dev/shm``: Python's SharedMemory and semaphores,
vLLM's, NCCL's. Their programs remove them, but not when they are killed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER = Path("/dev/shm")
FileId = tuple[str, int]  # its name and inode


def files() -> frozenset[FileId]:
    """What is in the folder."""
    with contextlib.suppress(OSError), os.scandir(FOLDER) as entries:
        return frozenset((entry.name, entry.inode()) for entry in entries)
    return frozenset()


class SharedMemory:
    """What the processes of one process group share in files made since this was created."""

    def __init__(self) -> None:
        self._before = files()
        self._shared: set[FileId] = set()

    def look(self, group: int) -> None:
        """Note what the group's processes share now."""
        self._shared |= _shared_by(_group(group)) - self._before

    def remove(self, group: int) -> None:
        """Remove what was noted and is still there, unless a process outside of the group shares it
        or another user owns it. The group's processes have been killed."""
        left = self._shared & files()
        if not left:
            return
        left -= _shared_by(pid for pid in _pids() if _group_of(pid) != group)
        for name, inode in left:
            with contextlib.suppress(OSError):
                found = (FOLDER / name).lstat()
                is_own = found.st_uid == os.geteuid() and stat.S_ISREG(found.st_mode)
                if is_own and found.st_ino == inode:
                    (FOLDER / name).unlink()


def _group(group: int) -> list[int]:
    return [pid for pid in _pids() if _group_of(pid) == group]


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def _shared_by(pids: Iterable[int]) -> set[FileId]:
    found: set[FileId] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.update(_shared_in(Path(f"/proc/{pid}/maps").read_text(errors="replace")))
    return found


def _shared_in(maps: str) -> Iterator[FileId]:
    """The files directly in the folder that a process shares for writing. Not a model there, which
    is mapped privately."""
    for line in maps.splitlines():
        _, mode, _, _, inode, *rest = line.split(maxsplit=5)
        path = rest[0] if rest else ""
        if mode[1] == "w" and mode[3] == "s" and path.startswith(f"{FOLDER}/"):
            name = path.removeprefix(f"{FOLDER}/")
            if "/" not in name:  # nor of a file that was removed: "NAME (deleted)" is not there
                yield name, int(inode)
