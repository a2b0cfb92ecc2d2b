"""The project's own source at a commit."""

from __future__ import annotations

import subprocess
from io import BytesIO

from sut.machine.checkout import ROOT


def has(commit: str) -> bool:
    """Whether the checkout that contains this package has the commit."""
    return _git("cat-file", "-e", "--end-of-options", f"{commit}^{{commit}}") is not None


def archive(commit: str) -> BytesIO | None:
    """Every file of a commit, as a tar archive; None if this checkout lacks it."""
    content = _git("archive", "--format=tar", "--", commit)
    return None if content is None else BytesIO(content)


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
