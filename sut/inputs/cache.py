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

from sut.errors import InputError, SutError, other_folder, quoted
from sut.home import container_image, expanded
from sut.plan.plan import Plan
from sut.rundir import write_atomic
from sut.values import UNDECODABLE

T = TypeVar("T")

CACHE_VARIABLE = "SUT_CACHE"

# What a run reads or executes.
FOLDERS = ("assets", "compiled", "hashes", "huggingface", "models", "requests", "samples")

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def cache_dir() -> Path:
    """The user's cache folder for this project. It may not exist. Raises InputError where another
    user may write to it, and without a home folder."""
    given = os.environ.get(CACHE_VARIABLE)
    return only_ours(Path(given) if given else user_cache_dir())


def user_cache_dir() -> Path:
    """The same, whatever the site of the run that this process is part of."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "mlperf-sut"
    return expanded("~/.cache/mlperf-sut")


def cache_of(plan: Plan) -> Path:
    """The cache folder of a run: the plan's, else the user's. Raises InputError as
    :func:`cache_dir`."""
    return only_ours(Path(plan.cache)) if plan.cache else cache_dir()


def only_ours(folder: Path) -> Path:
    """``folder``. Raises InputError if a user other than this one and root may write to it or to a
    folder that a run uses in it: they could plant a link, or a file that a run would use."""
    for each in (folder, *(folder / name for name in FOLDERS)):
        try:
            found = each.stat()
        except OSError:  # it does not exist, or cannot be used
            continue
        if found.st_uid not in _trusted():
            raise InputError(
                f"{each} belongs to another user ({found.st_uid})",
                hint="choose a folder of your own: --set site.cache=/path, or XDG_CACHE_HOME=/path",
            )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise InputError(
                f"other users may write to {each} (mode {stat.S_IMODE(found.st_mode):o})",
                hint=f"if you know all that is in it: chmod -R go-w {quoted(folder)}; else choose "
                "another: --set site.cache=/path",
            )
    return folder


def _trusted() -> set[int]:
    """This user, and root. In a user namespace, as a container's, root can be unknown."""
    trusted = {os.geteuid(), 0}
    if container_image():
        trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return trusted


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """A new folder that becomes ``target`` if the block raises nothing. Atomic.

    Two processes may build the same target: the first to finish wins, the other's is deleted.
    Raises SutError if the cache folder is not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        folder = scratch / "new"
        folder.mkdir()
    except OSError as error:
        raise _unwritable(error, target) from None
    built = False
    try:
        yield folder
        built = True
        folder.rename(target)
    except OSError as error:
        if not built and error.errno not in NOT_WRITABLE:
            raise
        if not built or not target.is_dir():
            raise _unwritable(error, target) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unwritable(error: OSError, target: Path) -> SutError:
    return SutError(
        f"cannot write to the cache folder: {error.filename or target}: {error.strerror}",
        hint=other_folder(error.errno, "XDG_CACHE_HOME=/path"),
        code="cache",
    )


def key_of(**made_of: object) -> str:
    """The key of a cache entry: sha256 of everything that decides its value."""
    return hashlib.sha256(msgspec.json.encode(made_of, order="sorted")).hexdigest()


def read_entry(file: Path, key: str, kind: type[T]) -> T | None:
    """The value that :func:`write_entry` stored under ``key``; None for another key, a damaged
    file, one that another user could have written, or none."""
    try:
        content = read_own(file)
        value = content[hashlib.sha256().digest_size :]
        return msgspec.msgpack.decode(value, type=kind) if _sealed(key, value) == content else None
    except (OSError, *UNDECODABLE):
        return None


def read_own(file: Path) -> bytes:
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
