"""What a record calls a commit is never an option of git."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import records

from sut.errors import InputError
from sut.machine.environment import Git
from sut.results import record
from sut.rundir import RunDir
from sut.submission import source


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "victim"
    file.write_text("kept")
    return file


def test_an_option_is_no_commit(victim: Path) -> None:
    for option in (f"--output={victim}", f"--exec={victim}", "--all"):
        assert source.archive(option) is None
        assert not source.has(option)
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("commit", ["--output={}", "HEAD", "a" * 39, "A" * 40])
def test_a_record_with_another_commit_than_a_hash_is_refused(
    commit: str, victim: Path, tmp_path: Path
) -> None:
    git = Git(commit=commit.format(victim), dirty=False)
    whole = records.completed()
    environment = msgspec.structs.replace(whole.environment, git=git)
    record.write(msgspec.structs.replace(whole, environment=environment), RunDir(tmp_path))
    with pytest.raises(InputError, match="not a complete record"):
        record.read(tmp_path)


def test_a_commit_is_read() -> None:
    for commit in ("a" * 40, "0123456789abcdef" * 4):
        assert msgspec.convert({"commit": commit, "dirty": False}, Git).commit == commit
