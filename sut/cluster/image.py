"""The image file on a node: its hash, its private copy on the node's disk, its signature.

Apptainer opens an image by its path, so only a file that no other user can replace is certain to
be the one that was hashed (docs/decisions/an-image-is-hashed-where-it-runs.md).
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from pathlib import Path

from sut.errors import InputError
from sut.inputs import hashes

CHUNK = 16 * 2**20


def sha256_of(image: Path) -> str:
    """sha256 of a SIF. Raises InputError if it cannot be read."""
    try:
        return hashes.kept([image], lambda: hashes.sha256_of(image))
    except OSError as error:
        raise InputError(
            f"cannot read the image on {os.uname().nodename}: {image}: {error.strerror}",
            hint="build it with containers/build.sh (docs/images.md), or choose another: "
            "--set site.container.image=FILE",
        ) from None


def staged(image: Path, sha256: str, node_cache: str) -> Path:
    """The image's copy in this user's folder of ``node_cache``, made if there is none with its
    ``sha256``; the image if ``node_cache`` is empty.

    Raises InputError if the copy fails.
    """
    if not node_cache:
        return image
    try:
        copy = _own_folder(Path(node_cache)) / f"{sha256}.sif"
        if not copy.is_file() or sha256_of(copy) != sha256:
            _copy(image, sha256, copy)
    except OSError as error:
        raise InputError(
            f"cannot copy the image to {error.filename or node_cache} on {os.uname().nodename}: "
            f"{error.strerror}",
            hint="set container.node_cache in the site's file to a writable folder with room for "
            'the image, or --set site.container.node_cache=""',
        ) from None
    return copy


def require_signature(program: str, image: Path) -> None:
    """Raise InputError unless ``image`` is signed with a key in the local keyrings of ``program``,
    Apptainer or SingularityCE."""
    command = [program, "verify", "--local", str(image)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"cannot start {program}: {error.strerror}") from None
    if done.returncode != 0:
        why = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise InputError(
            f"the image's signature is not valid on {os.uname().nodename} ({image}): {why}",
            hint="sign it, and import the key on each node: docs/images.md",
        )


def _own_folder(node_cache: Path) -> Path:
    """This user's folder in ``node_cache``, which no other user can enter or replace. Raises
    InputError, OSError."""
    node_cache.mkdir(parents=True, exist_ok=True)
    own = node_cache / f"sut-{os.geteuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    around, inside = node_cache.stat(), own.lstat()
    shared = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX
    if around.st_uid not in (os.geteuid(), 0) or shared:
        raise InputError(
            f"another user can replace the image's copy in {node_cache} on {os.uname().nodename}",
            hint="choose a folder of your own: --set site.container.node_cache=/path; or let root "
            f"make it for all: mkdir -m 1777 {node_cache}",
        )
    private = stat.S_ISDIR(inside.st_mode) and not inside.st_mode & 0o077
    if inside.st_uid != os.geteuid() or not private:
        raise InputError(
            f"{own} on {os.uname().nodename} is not a folder for you alone", hint=f"rm -r {own}"
        )
    return own


def _copy(image: Path, sha256: str, copy: Path) -> None:
    """Raises InputError if what was copied has another hash, OSError."""
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=copy.parent, prefix=".", delete=False) as part:
        try:
            with image.open("rb") as source:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    part.write(chunk)
            part.flush()
            os.fsync(part.fileno())
            if digest.hexdigest() != sha256:
                raise InputError(
                    f"the image changed while it was copied ({image})", hint="submit again"
                )
            os.replace(part.name, copy)
        except BaseException:
            os.unlink(part.name)
            raise
    folder = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
