"""Who is notified when a run ends. Kept beside the plan: it does not change what is measured."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.rundir import RunDir, write_atomic
from sut.values import UNDECODABLE, Struct


class Notices(Struct, frozen=True, kw_only=True):
    """A shell command that runs when the run has ended, and Slurm's own mail. Empty: none."""

    command: str = ""
    mail_type: str = ""
    mail_user: str = ""


NOBODY = Notices()


def write(notices: Notices, run_dir: RunDir) -> None:
    """Only its user can read the file: a command may contain a secret. Raises OSError."""
    if notices != NOBODY:
        write_atomic(run_dir.notices, msgspec.json.encode(notices) + b"\n", mode=0o600)


def read(run_dir: RunDir) -> Notices:
    """Raises InputError for a damaged file."""
    path: Path = run_dir.notices
    try:
        return msgspec.json.decode(path.read_bytes(), type=Notices)
    except FileNotFoundError:
        return NOBODY
    except (OSError, *UNDECODABLE) as error:
        raise InputError(f"cannot read whom to notify ({path}): {error}") from None
