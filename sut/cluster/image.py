"""The image file on a node: its hash, and its copy on the node's own disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sut.errors import InputError
from sut.inputs import hashes


def sha256_of(image: Path) -> str:
    """sha256 of a SIF, kept by its size and time. Raises InputError where there is none."""
    try:
        return hashes.kept([image], lambda: hashes.sha256_of(image))
    except OSError as error:
        raise InputError(
            f"{image}: {error.strerror} on {os.uname().nodename}. Build the image with "
            "containers/build.sh (docs/images.md), or name another: --set site.container.image=..."
        ) from None


def staged(image: Path, sha256: str, node_cache: str) -> Path:
    """The image in ``node_cache``, copied there on first use; itself where that is empty."""
    if not node_cache:
        return image
    copy = Path(node_cache) / f"{sha256}.sif"
    if copy.is_file():
        return copy
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=copy.parent, prefix=".", delete=False) as part:
            try:
                with image.open("rb") as source:
                    shutil.copyfileobj(source, part, 16 * 2**20)
                os.chmod(part.name, 0o644)
                part.flush()
                os.replace(part.name, copy)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        raise InputError(
            f"{error.filename or copy}: {error.strerror} on {os.uname().nodename}. "
            "container.node_cache must be a writable folder with room for the image"
        ) from None
    return copy
