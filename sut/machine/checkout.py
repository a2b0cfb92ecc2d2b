"""The source that runs: its commit, and its files that differ from it.

Needs only the standard library: ``python3 sut/machine/checkout.py`` prints the revision for
``containers/build.sh``.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
# What is built or run. Documents, tests and files of the user do not change a result.
PATHS = (
    *("sut", "csrc", "configs", "slurm", "containers", "requirements", "tools"),
    *("CMakeLists.txt", "pyproject.toml", "setup.py"),
)
OF_THE_USER = ("configs/",)  # untracked benchmarks and sites; a run's plan contains its own
COMMAND_S = 10
CODE = (".py", ".so")
NOT_BUILT = ("tests", "fuzz")  # folders of csrc


def commit(root: Path = ROOT) -> str | None:
    """The checkout's commit; None outside a checkout. The package may be installed inside some
    other repository."""
    if not (root / ".git").exists():
        return None
    text = _git(root, "rev-parse", "HEAD")
    return None if text is None else text.strip()


def changes(root: Path = ROOT) -> list[str] | None:
    """The files of the source that differ from the commit, relative to ``root``; None if git does
    not answer."""
    # -z: names as they are, and a renamed file's old name as a further entry.
    text = _git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--", *PATHS)
    if text is None:
        return None
    found = []
    entries = iter(text.split("\0"))
    for entry in entries:
        state, name = entry[:2], entry[3:]
        if not name or (state == "??" and name.startswith(OF_THE_USER)):
            continue
        found.append(name)
        if "R" in state or "C" in state:
            found.append(next(entries))
    return sorted(found)


def revision(root: Path = ROOT) -> str:
    """The commit, with ``-dirty`` if files differ from it; ``unknown`` if git does not answer."""
    at, differing = commit(root), changes(root)
    if at is None or differing is None:
        return "unknown"
    return f"{at}-dirty" if differing else at


def source_sha256() -> str | None:
    """sha256 of this package's code and of the replay engine, by their names and contents; None
    where a file cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in sorted(PACKAGE.rglob("*")):
            if path.suffix in CODE or path.name == "replay_engine":
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(PACKAGE)} {content}\n".encode())
    except OSError:
        return None
    return digest.hexdigest()


def core_sources(root: Path = ROOT) -> str:
    """sha256 of the C++ sources, by their names and contents; empty where there are none, as in an
    installed package. The core has that of the sources it was built from."""
    folder, digest = root / "csrc", hashlib.sha256()
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    built = sorted(p for p in paths if p.parts[0] not in NOT_BUILT and p.suffix != ".md")
    for path in built:
        content = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        digest.update(f"{path} {content}\n".encode())
    return digest.hexdigest() if built else ""


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=COMMAND_S,
            check=True,
            # Reading must not write: the checkout may be someone else's or read-only.
            env={**os.environ, "LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


if __name__ == "__main__":
    print(revision())
