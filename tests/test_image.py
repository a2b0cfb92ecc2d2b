"""The image that runs is the one whose hash is on record."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from sut.cluster import image
from sut.errors import InputError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another owner needs root")
CONTENT = b"an image"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "image.sif"
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def node_cache(tmp_path: Path) -> Path:
    return tmp_path / "disk" / "images"


def stage(source: Path, node_cache: Path) -> Path:
    return image.staged(source, image.sha256_of(source), str(node_cache))


def test_a_copy_is_private(source: Path, node_cache: Path) -> None:
    copy = stage(source, node_cache)
    assert copy.name == f"{SHA256}.sif" and copy.read_bytes() == CONTENT
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [each.name for each in copy.parent.iterdir()] == [copy.name]


def test_an_equal_copy_is_used_again(source: Path, node_cache: Path) -> None:
    before = stage(source, node_cache).stat()
    assert stage(source, node_cache).stat() == before


@pytest.mark.parametrize("content", [b"", b"an other", CONTENT + b" and more"])
def test_another_file_under_the_copys_name_is_not_run(
    content: bytes, source: Path, node_cache: Path
) -> None:
    copy = stage(source, node_cache)
    times = copy.stat()
    copy.write_bytes(content)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stage(source, node_cache).read_bytes() == CONTENT


def test_a_file_planted_in_the_node_cache_is_not_run(source: Path, node_cache: Path) -> None:
    node_cache.mkdir(parents=True)
    (node_cache / f"{SHA256}.sif").write_bytes(b"planted")
    assert stage(source, node_cache).read_bytes() == CONTENT


def test_an_image_replaced_by_one_of_its_size_and_time_is_hashed_again(source: Path) -> None:
    times = source.stat()
    assert image.sha256_of(source) == SHA256
    source.write_bytes(b"an other")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert image.sha256_of(source) == hashlib.sha256(b"an other").hexdigest()


def test_an_image_that_changes_while_it_is_copied_is_refused(
    source: Path, node_cache: Path
) -> None:
    with pytest.raises(InputError, match="changed while it was copied"):
        image.staged(source, "0" * 64, str(node_cache))
    (folder,) = node_cache.iterdir()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o775, 0o777])
def test_a_node_cache_that_others_can_change_is_refused(
    mode: int, source: Path, node_cache: Path
) -> None:
    node_cache.mkdir(parents=True)
    node_cache.chmod(mode)
    with pytest.raises(InputError, match="another user can replace the image's copy"):
        stage(source, node_cache)
    node_cache.chmod(0o1777)  # as /tmp
    assert stage(source, node_cache).read_bytes() == CONTENT


@as_root
def test_another_users_node_cache_is_refused(source: Path, node_cache: Path) -> None:
    node_cache.mkdir(parents=True)
    os.chown(node_cache, 1234, 1234)
    with pytest.raises(InputError, match="another user can replace the image's copy"):
        stage(source, node_cache)


def test_a_planted_folder_or_link_is_refused(
    source: Path, node_cache: Path, tmp_path: Path
) -> None:
    own = node_cache / f"sut-{os.geteuid()}"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    node_cache.mkdir(parents=True)
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is not a folder for you alone"):
        stage(source, node_cache)
    own.unlink()
    own.mkdir()
    own.chmod(0o755)
    with pytest.raises(InputError, match="is not a folder for you alone"):
        stage(source, node_cache)


@pytest.mark.parametrize("valid", [True, False])
def test_an_image_needs_a_signature_where_the_site_asks(
    valid: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "apptainer"
    tool.parent.mkdir()
    answer = "exit 0" if valid else "echo 'FATAL: signature not found' >&2; exit 255"
    tool.write_text(f'#!/bin/sh\necho "$*" >{tmp_path / "asked"}\n{answer}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    if valid:
        image.require_signature("apptainer", source)
    else:
        with pytest.raises(InputError, match=r"is not valid .*: FATAL: signature not found"):
            image.require_signature("apptainer", source)
    assert (tmp_path / "asked").read_text() == f"verify --local {source}\n"
