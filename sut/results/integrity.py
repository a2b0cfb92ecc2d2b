"""The hashes by which a record is bound to its files, and to itself.

The digest of a record is the sha256 of its file with 64 zeros in place of the digest. It shows that
a record was changed, not who wrote it: that is what a signature is for.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sut.rundir import RunDir
from sut.values import Struct

BLANK = "0" * 64
# The only such place: strings have no line breaks, and inner keys are indented further.
_DIGEST = re.compile(rb'\n  "digest": "([0-9a-f]{64})"')
_CHUNK = 1 << 20


class File(Struct, frozen=True):
    """The first ``bytes`` bytes of a file."""

    sha256: str
    bytes: int


def seal(content: bytes) -> bytes:
    """A record's file with its digest instead of BLANK."""
    return _with_digest(content, hashlib.sha256(content).hexdigest())


def is_intact(content: bytes) -> bool:
    """Whether a record's file has its own digest."""
    found = _DIGEST.search(content)
    if found is None:
        return False
    blank = _with_digest(content, BLANK)
    return hashlib.sha256(blank).hexdigest().encode() == found[1]


def _with_digest(content: bytes, digest: str) -> bytes:
    return _DIGEST.sub(f'\n  "digest": "{digest}"'.encode(), content, count=1)


def hashed(root: Path, files: Iterable[Path]) -> dict[str, File]:
    """By the path from ``root``. A file that cannot be read is left out: a run must not lose its
    record by it."""
    found = {}
    for file in files:
        with contextlib.suppress(OSError):
            found[file.relative_to(root).as_posix()] = _hashed(file)
    return found


def changes(run_dir: RunDir, files: dict[str, File], growing: Iterable[str]) -> Iterator[str]:
    """A line for each file that is not as recorded. A path that begins with one of ``growing`` may
    have become longer."""
    may_grow = tuple(growing)
    for name, expected in files.items():
        file = run_dir.root / name
        try:
            found, size = _hashed(file, expected.bytes), file.stat().st_size
        except OSError as error:
            yield f"{file}: cannot read it: {error.strerror}"
            continue
        if found != expected or (size > expected.bytes and not name.startswith(may_grow)):
            yield f"{file}: changed since the run"


def others(run_dir: RunDir, files: dict[str, File], of_phases: Iterable[Path]) -> list[str]:
    """The files of a run directory that the record does not cover, and those that have grown."""
    known = {run_dir.record, run_dir.signature, *of_phases}
    found = []
    for file in run_dir.root.rglob("*"):
        if file.is_dir() or file in known:
            continue
        name = file.relative_to(run_dir.root).as_posix()
        if name not in files:
            found.append(name)
        elif (more := file.stat().st_size - files[name].bytes) > 0:
            found.append(f"{name} (the last {more:,} bytes)")
    return sorted(found)


def _hashed(file: Path, most: int | None = None) -> File:
    """The file, or its first ``most`` bytes."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK if most is None else min(_CHUNK, most - size)):
            digest.update(chunk)
            size += len(chunk)
    return File(digest.hexdigest(), size)
