"""A new run directory, with the plan in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.plan.plan import Mode, Plan
from sut.rundir import RunDir, write_atomic


def create(plan: Plan, run_root: Path) -> RunDir:
    """A new folder under ``run_root`` with the plan in it; ``latest`` there points at it, unless
    it only looks at nodes.

    Raises InputError where that can't be written.
    """
    with writing_to(run_root):
        looks = plan.mode is Mode.PREFLIGHT
        what = "preflight" if looks else f"{plan.benchmark}-{plan.scenario}-{plan.preset}"
        run_dir = RunDir(new_folder(run_root, what))
        run_dir.slurm.mkdir()
        run_dir.logs.mkdir()
        write_atomic(run_dir.user_conf, plan.user_conf())
        write_atomic(run_dir.plan, msgspec.json.format(msgspec.json.encode(plan), indent=2))
        if not looks:
            _point_latest_at(run_dir)
    return run_dir


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Inside, an OSError becomes an InputError that tells of ``folder``."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror}. Runs are kept in {folder}, which "
            "must be writable and have room; another: --set site.run_root=/path"
        ) from None


def new_folder(root: Path, name: str) -> Path:
    """``root``/TIME-``name``, made. Raises OSError."""
    stamped = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{name}"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = root / (stamped if number == 1 else f"{stamped}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{root}: a thousand runs are called {stamped}")


def _point_latest_at(run_dir: RunDir) -> None:
    """Make the symlink, or replace what is there in one step."""
    temporary = run_dir.root.parent / f".latest-{run_dir.root.name}"
    temporary.symlink_to(run_dir.root.name)
    temporary.replace(run_dir.root.parent / "latest")
