"""The cache folder: models, tokenized data and compiled kernels, shared by all runs."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from sut.errors import SutError
from sut.plan.plan import Plan

CACHE_VARIABLE = "SUT_CACHE"

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def cache_dir() -> Path:
    """The user's cache folder for this project. It may not exist."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlperf-sut"


def cache_of(plan: Plan) -> Path:
    """The cache folder of a run: the plan's, else the user's."""
    return Path(plan.cache) if plan.cache else cache_dir()


class building:  # noqa: N801 (a context manager, used as a verb)
    """A new folder that becomes ``target`` if the block raises nothing. Atomic.

    Two processes may build the same target: the first to finish wins, the other's is deleted.
    Raises SutError if the cache folder is not writable.
    """

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> Path:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(dir=self._target.parent, prefix=f".{self._target.name}.")
        except OSError as error:
            raise _unwritable(error, self._target) from None
        self._folder = Path(name)
        return self._folder

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._folder.chmod(0o755)
                self._folder.rename(self._target)
        except OSError as failed:
            if not self._target.is_dir():
                raise _unwritable(failed, self._target) from None
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise _unwritable(error, self._target)


def _unwritable(error: OSError, target: Path) -> SutError:
    return SutError(
        f"cannot write to the cache folder: {error.filename or target}: {error.strerror}",
        hint="make it writable and free some space, or set XDG_CACHE_HOME to another folder",
        code="cache",
    )
