"""Hashes of files, cached for large ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sut.inputs.cache import cache_dir, read_own
from sut.rundir import write_atomic

TICK_NS = 2 * 10**9  # a change within it may leave the inode's time as it is


def sha256_of(file: Path) -> str:
    """Raises OSError."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def of_folder(folder: Path) -> dict[str, str]:
    """sha256 of each file in ``folder``, by name. Raises OSError."""
    return {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}


def kept(files: Sequence[Path], compute: Callable[[], str]) -> str:
    """``compute()``, cached by what identifies the content of ``files``. Raises OSError."""
    before = [identity(file) for file in files]
    key = hashlib.sha256(msgspec.json.encode(before)).hexdigest()
    known = cache_dir() / "hashes" / key
    with contextlib.suppress(OSError):
        return read_own(known).decode()
    began_ns = time.time_ns()
    digest = compute()
    is_settled = all(each[-1] + TICK_NS < began_ns for each in before)
    if is_settled and before == [identity(file) for file in files]:
        with contextlib.suppress(OSError):  # without the cache it is only slower
            write_atomic(known, digest)
    return digest


def identity(file: Path | int) -> tuple[str, int, int, int, int]:
    """What changes with a file's content; its last element is the time of its inode, which only the
    file system sets. ``file`` may be a descriptor. Raises OSError."""
    found = os.stat(file)
    path = f"/proc/self/fd/{file}" if isinstance(file, int) else file
    return (
        os.path.realpath(path),
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
