"""The cache folder: models, tokenized data, requests and compiled kernels, shared by all runs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from sut.errors import SutError
from sut.plan.plan import Plan
from sut.rundir import write_atomic
from sut.values import UNDECODABLE

T = TypeVar("T")

CACHE_VARIABLE = "SUT_CACHE"

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def cache_dir() -> Path:
    """The user's cache folder for this project. It may not exist."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    return user_cache_dir()


def user_cache_dir() -> Path:
    """The same, whatever the site of the run that this process is part of."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlperf-sut"


def cache_of(plan: Plan) -> Path:
    """The cache folder of a run: the plan's, else the user's."""
    return Path(plan.cache) if plan.cache else cache_dir()


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """A new folder that becomes ``target`` if the block raises nothing. Atomic.

    Two processes may build the same target: the first to finish wins, the other's is deleted.
    Raises SutError if the cache folder is not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise _unwritable(error, target) from None
    built = False
    try:
        yield folder
        built = True
        folder.chmod(0o755)
        folder.rename(target)
    except OSError as error:
        if not built and error.errno not in NOT_WRITABLE:
            raise
        if not built or not target.is_dir():
            raise _unwritable(error, target) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unwritable(error: OSError, target: Path) -> SutError:
    return SutError(
        f"cannot write to the cache folder: {error.filename or target}: {error.strerror}",
        hint="make it writable and free some space, or set XDG_CACHE_HOME to another folder",
        code="cache",
    )


def key_of(**made_of: object) -> str:
    """The key of a cache entry: sha256 of everything that decides its value."""
    return hashlib.sha256(msgspec.json.encode(made_of, order="sorted")).hexdigest()


def read_entry(file: Path, key: str, kind: type[T]) -> T | None:
    """The value that :func:`write_entry` stored under ``key``; None for another key, a damaged
    file, one that another user could have written, or none."""
    try:
        content = _own(file)
        value = content[hashlib.sha256().digest_size :]
        return msgspec.msgpack.decode(value, type=kind) if _sealed(key, value) == content else None
    except (OSError, *UNDECODABLE):
        return None


def _own(file: Path) -> bytes:
    """The content of a file of this user or of root that no other user can change. Raises
    OSError."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    with open(fd, "rb") as content:
        found = os.fstat(fd)
        writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if found.st_uid not in (os.geteuid(), 0) or writable:
            raise PermissionError(errno.EPERM, "not this user's", str(file))
        return content.read()


def write_entry(file: Path, key: str, value: object) -> None:
    """Store ``value``. A cache that is not writable is no error: the next run is only slower."""
    with contextlib.suppress(OSError):
        write_atomic(file, _sealed(key, msgspec.msgpack.encode(value)))


def _sealed(key: str, value: bytes) -> bytes:
    """``value`` after a hash of it and its key, so that neither another nor a damaged entry is
    used."""
    return hashlib.sha256(key.encode() + value).digest() + value
