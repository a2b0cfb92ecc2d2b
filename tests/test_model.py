"""Model folders: what vLLM cannot load is reported before it starts."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import msgspec
import pytest

from sut.inputs import model, model_config
from sut.plan.benchmark import Model


def header(num_bytes: int, tensor: str = "w") -> bytes:
    """The head of a safetensors file with one tensor of this many bytes."""
    text = json.dumps(
        {tensor: {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}
    ).encode()
    return struct.pack("<Q", len(text)) + text


def safetensors(num_bytes: int) -> bytes:
    return header(num_bytes) + b"\0" * num_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors(100))
    return tmp_path


def shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(safetensors(50))
    weight_map = {f"w{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.own_cache
def test_the_embedded_models_size_matches_its_folder() -> None:
    built = model_config.size(model.embedded())
    assert built is not None and built.weights_gib and model.EMBEDDED_SIZE.weights_gib
    assert built.weights_gib == pytest.approx(model.EMBEDDED_SIZE.weights_gib, abs=0.01)
    known = msgspec.structs.replace(model.EMBEDDED_SIZE, weights_gib=built.weights_gib)
    assert built == known


def test_a_complete_folder_has_no_errors(folder: Path) -> None:
    assert model.check(folder) == []
    shard(folder)
    assert model.check(folder) == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (error,) = model.check(folder)
    assert str(folder / name) in error and "No such file" in error


def test_an_incomplete_shard_is_named(folder: Path) -> None:
    shard(folder)
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    (error,) = model.check(folder)
    assert str(file) in error and "incomplete" in error


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"", "Git LFS pointer|not a safetensors|incomplete"),
        (b"\xff" * 100, "incomplete"),
        (struct.pack("<Q", 4) + b"oops", "not a safetensors file"),
    ],
)
def test_refuses_what_is_not_safetensors(folder: Path, content: bytes, part: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    (error,) = model.check(folder)
    assert any(each in error for each in part.split("|"))


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00002.bin", "model-q4.gguf"])
def test_names_weights_of_another_kind(folder: Path, name: str) -> None:
    (folder / name).touch()
    assert model.check(folder) == []
    (folder / "model.safetensors").unlink()
    (error,) = model.check(folder)
    assert f"its weights are {Path(name).suffix} files; only safetensors" in error


def test_names_the_snapshot_of_a_cached_model(tmp_path: Path) -> None:
    taken = tmp_path / "models--org--M" / "snapshots" / "abc"
    taken.mkdir(parents=True)
    (error,) = model.check(taken.parent.parent)
    assert error.endswith(f"give one of its snapshots: {taken}")
    taken.rmdir()
    (error,) = model.check(taken.parent.parent)
    assert error.endswith("/snapshots/REVISION")


def test_reports_every_error(tmp_path: Path) -> None:
    errors = model.check(tmp_path)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert any(str(tmp_path / name) in error for error in errors)


def test_the_hash_depends_on_the_contents(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    first = model.model_hash(folder)
    assert model.model_hash(folder) == first
    (folder / "config.json").write_text('{"a": 1}')
    assert model.model_hash(folder) != first


def test_a_converted_model_in_the_assets_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUT_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    (tmp_path / model.CONVERTED).mkdir()
    assert model.embedded() == model.converted(tmp_path) == tmp_path / model.CONVERTED


def test_assets_without_a_converted_model_leave_it_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUT_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached = tmp_path / "mlperf-sut" / "models" / model.CONVERTED
    cached.mkdir(parents=True)
    assert model.embedded() == cached


def test_the_embedded_model_is_a_complete_folder() -> None:
    path = model.locate(Model(name=model.EMBEDDED, loadgen_name="x", embedded=True))
    assert model.check(path) == []
    config = json.loads((path / "config.json").read_text())
    assert config["tie_word_embeddings"] and config["rope_parameters"]["rope_theta"] == 100000
    assert "quantization_config" not in config
