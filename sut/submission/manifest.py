"""``SHA256SUMS`` of a submission, in sha256sum's format: every file as it was built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sut.errors import InputError
from sut.inputs import hashes
from sut.rundir import write_atomic

FILE_NAME = "SHA256SUMS"


def write(root: Path) -> None:
    """Write it for every file in ``root``, a submitter's folder. Raises OSError."""
    lines = [f"{hashes.sha256_of(root / name)}  {name}\n" for name in _names(root)]
    write_atomic(root / FILE_NAME, "".join(lines))


def changes(tree: Path) -> list[str]:
    """Every file of a submission's tree that was changed, removed or added since it was built.
    Raises InputError if the folder is not a submission."""
    manifests = sorted(tree.glob(f"*/*/{FILE_NAME}"))
    if not manifests:
        raise InputError(
            f"not a submission built by sut.package ({tree}): no */*/{FILE_NAME}",
            hint="give the folder that sut.package created: --check submission-NAME",
        )
    return [change for manifest in manifests for change in _changes(manifest)]


def _changes(manifest: Path) -> Iterator[str]:
    root = manifest.parent
    expected = {}
    for line in manifest.read_text().splitlines():
        sha256, _, name = line.partition("  ")
        expected[name] = sha256
    present = set(_names(root))
    for name, sha256 in expected.items():
        if name not in present:
            yield f"{root / name}: missing"
        elif hashes.sha256_of(root / name) != sha256:
            yield f"{root / name}: changed since it was built"
    for name in sorted(present - expected.keys()):
        yield f"{root / name}: added since it was built"


def _names(root: Path) -> list[str]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != FILE_NAME)
    return sorted(path.relative_to(root).as_posix() for path in files)
