"""The image file on a node: its hash, and its copy on the node's local disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sut.errors import InputError
from sut.inputs import hashes


def sha256_of(image: Path) -> str:
    """sha256 of a SIF, cached by its size and time. Raises InputError if it cannot be read."""
    try:
        return hashes.kept([image], lambda: hashes.sha256_of(image))
    except OSError as error:
        raise InputError(
            f"cannot read the image on {os.uname().nodename}: {image}: {error.strerror}",
            hint="build it with containers/build.sh (docs/images.md), or choose another: "
            "--set site.container.image=FILE",
        ) from None


def staged(image: Path, sha256: str, node_cache: str) -> Path:
    """The image's copy in ``node_cache``, made on first use; the image if ``node_cache`` is empty.

    Raises InputError if the copy fails.
    """
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
            f"cannot copy the image to {error.filename or copy} on {os.uname().nodename}: "
            f"{error.strerror}",
            hint="set container.node_cache in the site's file to a writable folder with room for "
            'the image, or --set site.container.node_cache=""',
        ) from None
    return copy
