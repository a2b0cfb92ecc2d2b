"""Hashes of files, cached for large ones."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sut.inputs.cache import cache_dir
from sut.rundir import write_atomic


def sha256_of(file: Path) -> str:
    """Raises OSError."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def of_folder(folder: Path) -> dict[str, str]:
    """sha256 of each file in ``folder``, by name. Raises OSError."""
    return {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}


def kept(files: Sequence[Path], compute: Callable[[], str]) -> str:
    """``compute()``, cached by the paths, sizes and times of ``files``. Raises OSError."""
    states = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    key = hashlib.sha256(msgspec.json.encode(states)).hexdigest()
    known = cache_dir() / "hashes" / key
    if known.is_file():
        return known.read_text()
    digest = compute()
    with contextlib.suppress(OSError):  # without the cache it is only slower
        write_atomic(known, digest)
    return digest
