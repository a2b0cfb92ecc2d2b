"""What counts as a change of the source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli import ROOT

from sut.machine import checkout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with one commit of a few files."""
    for name in ("sut/a.py", "csrc/a.cc", "configs/sites/jw.yaml", "docs/run.md", "setup.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    (tmp_path / ".gitignore").write_text("*.so\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    identity = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME",)}
    identity |= {"GIT_AUTHOR_EMAIL": "x@x", "GIT_COMMITTER_EMAIL": "x@x"}
    subprocess.run(["git", "-C", str(root), *arguments], check=True, env={**os.environ, **identity})


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=x")


@pytest.mark.parametrize(
    "name",
    [
        "mine.yaml",
        "configs/sites/mine.yaml",
        "configs/benchmarks/my folder/ours.yaml",
        "submission-Example/closed/Example/README.md",
        "docs/run.md",
        "docs/new.md",
        "sut/_core.so",
    ],
)
def test_files_that_are_not_run_do_not_count(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("2\n")
    assert checkout.changes(repository) == []
    assert checkout.revision(repository) == checkout.commit(repository)


@pytest.mark.parametrize(
    "name", ["sut/a.py", "sut/new/b c.py", "csrc/a.cc", "configs/sites/jw.yaml", "setup.py"]
)
def test_files_that_are_built_or_run_count(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("2\n")
    assert checkout.changes(repository) == [name]
    assert checkout.revision(repository) == f"{checkout.commit(repository)}-dirty"
    git(repository, "add", "--all")
    assert checkout.changes(repository) == [name]
    commit(repository)
    assert checkout.changes(repository) == []


def test_renamed_and_deleted_files_count(repository: Path) -> None:
    git(repository, "mv", "sut/a.py", "sut/b.py")
    (repository / "setup.py").unlink()
    assert checkout.changes(repository) == ["setup.py", "sut/a.py", "sut/b.py"]


def test_a_folder_without_git_has_no_revision(tmp_path: Path) -> None:
    assert checkout.commit(tmp_path) is None
    assert checkout.revision(tmp_path) == "unknown"


def test_needs_only_the_standard_library() -> None:
    """containers/build.sh runs it with the login node's own Python."""
    script = ROOT / "sut/machine/checkout.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == checkout.revision()
    assert (checkout.commit() or "unknown") in done.stdout


def test_names_our_files_to_git() -> None:
    ours = ["mine.yaml", "configs/sites/mine.yaml", "submission-Example/a", "mlperf-sut-cpu.sif"]
    done = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", *ours], capture_output=True, text=True
    )
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    assert done.stdout.splitlines() == ours
