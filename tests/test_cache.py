"""Cache entries: only the value that was stored under the same key is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sut.inputs import cache


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "folder" / "entry"
    cache.write_entry(file, "key", [b"value", b"other"])
    return file


def test_an_entry_is_read_as_written(file: Path) -> None:
    assert cache.read_entry(file, "key", list[bytes]) == [b"value", b"other"]


def test_an_entry_of_another_key_is_not_used(file: Path) -> None:
    assert cache.read_entry(file, "another", list[bytes]) is None


def test_a_missing_entry_is_not_used(tmp_path: Path) -> None:
    assert cache.read_entry(tmp_path / "entry", "key", list[bytes]) is None


def test_no_damaged_entry_is_used(file: Path) -> None:
    content = file.read_bytes()
    for at in range(len(content)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert cache.read_entry(file, "key", list[bytes]) is None
        file.write_bytes(content[:at])
        assert cache.read_entry(file, "key", list[bytes]) is None


def test_an_entry_of_another_type_is_not_used(file: Path) -> None:
    assert cache.read_entry(file, "key", list[int]) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_an_entry_of_another_user_is_not_used(file: Path) -> None:
    os.chown(file, 12345, -1)
    assert cache.read_entry(file, "key", list[bytes]) is None


def test_an_entry_that_others_can_write_is_not_used(file: Path) -> None:
    file.chmod(0o664)
    assert cache.read_entry(file, "key", list[bytes]) is None


def test_a_link_is_not_used(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    assert cache.read_entry(link, "key", list[bytes]) is None


def test_an_unwritable_cache_is_no_error() -> None:
    cache.write_entry(Path("/proc/nowhere/entry"), "key", [])


def test_every_part_of_a_key_changes_it() -> None:
    first = cache.key_of(a=1, b="x")
    assert cache.key_of(b="x", a=1) == first
    assert len({first, cache.key_of(a=2, b="x"), cache.key_of(a=1, b="y"), cache.key_of(a=1)}) == 4
