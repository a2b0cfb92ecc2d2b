"""The user's home folder and name, which a user without a passwd entry need not have, and the
container and current folder of this process."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from sut.errors import InputError


def expanded(path: Path | str) -> Path:
    """``path`` with ``~`` replaced. Raises InputError where the home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"cannot find the home folder ({path}): HOME is not set, or user {os.geteuid()} has "
            "no passwd entry",
            hint="export HOME=/path",
        ) from None


def user_name() -> str:
    """The user's name; without one, the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def container_image() -> str | None:
    """The image that this process runs in, as Apptainer or SingularityCE names it; None outside of
    a container."""
    names = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
    return next((value for name in names if (value := os.environ.get(name))), None)


def current_folder_exists() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False
