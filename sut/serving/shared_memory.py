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
        self._shared: set[int] = set()  # inodes

    def look(self, group: int) -> None:
        """Note what the group's processes share now."""
        self._shared |= _shared_by(_group(group))

    def remove(self, group: int) -> None:
        """Remove what was noted and is still there, unless a process outside of the group shares it
        or another user owns it. The group's processes have been killed."""
        left = {each for each in files() - self._before if each[1] in self._shared}
        if not left:
            return
        in_use = _shared_by(pid for pid in _pids() if _group_of(pid) != group)
        for name, inode in left:
            if inode in in_use:
                continue
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


def _shared_by(pids: Iterable[int]) -> set[int]:
    """Inodes of the folder's file system that the processes share for writing. Not a model there,
    which is mapped privately."""
    found: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            device = FOLDER.stat().st_dev
            maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
            found.update(inode for inode, its in _shared_in(maps) if its == device)
    return found


def _shared_in(maps: str) -> Iterator[tuple[int, int]]:
    """The inode and the device of each file that is shared for writing. Its name may be another
    there: glibc maps a semaphore before it has its name."""
    for line in maps.splitlines():
        _, mode, _, device, inode, *_ = line.split(maxsplit=5)
        if mode[1] == "w" and mode[3] == "s":
            major, minor = (int(number, 16) for number in device.split(":"))
            yield int(inode), os.makedev(major, minor)
