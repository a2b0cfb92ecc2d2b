"""A new run directory that contains the plan."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sut.cluster import liveness
from sut.command import as_typed
from sut.errors import InputError, other_folder
from sut.launch import notices
from sut.launch.notices import NOBODY, Notices
from sut.plan.plan import Mode, Plan
from sut.results.record import Command
from sut.rundir import RunDir, remove_stale, write_atomic

_NEW, _LINK = ".new-", ".latest-"  # a run and the link to it, until they are in place


def create(plan: Plan, run_root: Path, command: str = "", notified: Notices = NOBODY) -> RunDir:
    """A new folder under ``run_root``; the link ``latest`` there points at it, unless the plan is
    a preflight. ``command`` is what a user typed to make it; empty: this process's command line.
    A process that is killed here leaves no run, but a hidden folder, which a later call removes.
    Raises InputError if it cannot be written.
    """
    with writing_to(run_root):
        preflight = plan.mode is Mode.PREFLIGHT
        what = "preflight" if preflight else f"{plan.benchmark}-{plan.scenario}-{plan.preset}"
        run_root.mkdir(parents=True, exist_ok=True)
        for pattern in (f"{_NEW}*", f"{_LINK}*"):
            remove_stale(run_root, pattern)
        with tempfile.TemporaryDirectory(dir=run_root, prefix=_NEW) as scratch:
            new = RunDir(Path(scratch) / "run")
            new.root.mkdir()
            _write(plan, new, command)
            notices.write(notified, new)
            run_dir = RunDir(_placed(run_root, what, lambda folder: new.root.rename(folder)))
        if not preflight:
            _point_latest_at(run_dir)
    return run_dir


def _write(plan: Plan, run_dir: RunDir, command: str) -> None:
    run_dir.job.mkdir()
    run_dir.logs.mkdir()
    made_by = Command(text=command or as_typed(), folder=os.getcwd())
    write_atomic(run_dir.command, msgspec.json.encode(made_by) + b"\n")
    write_atomic(run_dir.submitter, msgspec.json.encode(liveness.this_process()))
    write_atomic(run_dir.user_conf, plan.user_conf())
    write_atomic(run_dir.plan, msgspec.json.format(msgspec.json.encode(plan), indent=2))


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn an OSError into an InputError that names ``folder``."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot create the run directory ({error.filename or folder}): {error.strerror}",
            hint=other_folder(error.errno, "--root /path"),
        ) from None


def new_folder(root: Path, name: str) -> Path:
    """Create ``root``/TIME-``name``. Raises OSError."""
    root.mkdir(parents=True, exist_ok=True)
    return _placed(root, name, lambda folder: folder.mkdir())


def _placed(root: Path, name: str, place: Callable[[Path], object]) -> Path:
    """``root``/TIME-``name``, with a number if that exists, put in place by ``place``."""
    stamped = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{name}"
    for number in range(1, 1000):
        folder = root / (stamped if number == 1 else f"{stamped}-{number}")
        try:
            place(folder)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                continue
            raise
        return folder
    raise InputError(
        f"cannot create a run directory ({root}): 1,000 runs started in the same second",
        hint="submit again",
    )


def _point_latest_at(run_dir: RunDir) -> None:
    """Create the symlink or replace it atomically."""
    temporary = run_dir.root.parent / f"{_LINK}{run_dir.root.name}"
    temporary.symlink_to(run_dir.root.name)
    temporary.replace(run_dir.root.parent / "latest")
