"""The model folder of a run: checked, or built from the GGUF file of a PyPI package."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sut.errors import InputError, SutError
from sut.inputs import hashes, wheels
from sut.inputs.cache import building, cache_dir
from sut.plan.benchmark import Model
from sut.plan.fit import ModelSize
from sut.plan.kv_cache import KvCache

EMBEDDED = "SmolLM2-135M-Instruct"
EMBEDDED_SIZE = ModelSize(  # known before it is built
    weights_gib=0.25,
    weight_bytes=2,
    kv=KvCache(heads=3, values=2 * 64, layers=30),
    num_heads=9,
    num_kv_heads=3,
    num_layers=30,
    max_len=8192,
)
CONVERSION = 1  # increment when the same GGUF must give another folder
CONVERTED = f"{EMBEDDED}-{wheels.MODEL.sha256[:12]}-{CONVERSION}"  # its folder's name
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Mistral's own layout. vLLM prefers it to the other where a folder has both.
CONSOLIDATED = "consolidated"
CONSOLIDATED_INDEX = "consolidated.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"
_NOT_SAFETENSORS = (ValueError, LookupError, TypeError, AttributeError)


def locate(model: Model) -> Path:
    """The folder of ``model``, which need not exist. An embedded model is built on first use.
    Raises SutError."""
    if not model.embedded:
        return Path(model.path)
    if model.name != EMBEDDED:
        raise InputError(
            f"unknown embedded model '{model.name}'",
            hint=f"--set model.name={EMBEDDED}, or give a path: --set model.embedded=false",
        )
    return embedded()


def embedded() -> Path:
    """SmolLM2-135M-Instruct as a folder that vLLM loads: the one in SUT_ASSETS, as in an image,
    else the one in the cache, converted on first use. Raises SutError."""
    given = wheels.given_folder()
    if given is not None and (given / CONVERTED).is_dir():
        return given / CONVERTED
    return converted(cache_dir() / "models")


def converted(parent: Path) -> Path:
    """SmolLM2-135M-Instruct in its folder in ``parent``. The first call takes 20 seconds. Raises
    SutError."""
    target = parent / CONVERTED
    if not target.is_dir():
        with building(target) as folder:
            convert(wheels.model_gguf(), folder)
            if errors := check(folder):
                raise SutError("\nerror: ".join(errors), code="conversion")
    return target


def check(path: Path) -> list[str]:
    """What is missing, damaged or incomplete in a model folder."""
    if not path.is_dir():
        return [f"{path}: no such model folder"]
    if snapshot := _newest_snapshot(path):
        return [f"{path}: Hugging Face's folder of a model; give one of its snapshots: {snapshot}"]
    errors = _check_json(path / "config.json") + _check_json(path / "tokenizer.json")
    for index in (path / INDEX, path / CONSOLIDATED_INDEX):
        if os.path.lexists(index) and not _named(index):
            return errors + (_check_json(index) or [f"{index}: its weight_map names no files"])
    files = weights(path)
    if other := _other_weights(path) if files == [path / SINGLE] else []:
        what = ", ".join(sorted({file.suffix for file in other}))
        return [*errors, f"{path}: its weights are {what} files; only safetensors are supported"]
    return errors + [error for file in files for error in _check_weights(file)]


def _newest_snapshot(path: Path) -> Path | None:
    """Of a folder models--ORG--NAME in Hugging Face's cache."""
    taken = path / "snapshots"
    if (path / "config.json").exists() or not taken.is_dir():
        return None
    with contextlib.suppress(OSError, ValueError):  # or it has none
        return max(taken.iterdir(), key=lambda each: each.stat().st_mtime)
    return taken / "REVISION"


def _other_weights(path: Path) -> list[Path]:
    if (path / SINGLE).exists():
        return []
    return [file for kind in ("bin", "pt", "pth", "gguf") for file in path.glob(f"*.{kind}")]


def weights(path: Path) -> list[Path]:
    """The safetensors files of a model, by name, each once: those that the index names, else all;
    and Mistral's consolidated ones. What is named need not exist."""
    found = set(path.glob("*.safetensors"))
    own = {file for file in found if file.name.startswith(CONSOLIDATED)}
    others = _named(path / INDEX) or found - own
    own = _named(path / CONSOLIDATED_INDEX) or own
    return sorted(own | others or {path / SINGLE})


def weight_bytes(path: Path) -> int | None:
    """The size of the weights that vLLM keeps: a model that is there twice is kept once. None where
    a file is missing."""
    files = weights(path)
    own = [file for file in files if file.name.startswith(CONSOLIDATED)]
    files, index = (own, CONSOLIDATED_INDEX) if own else (files, INDEX)
    try:
        num_bytes = sum(file.stat().st_size for file in files)
        return num_bytes if len(files) == 1 or _named(path / index) else _tensor_bytes(files)
    except OSError:
        return None
    except _NOT_SAFETENSORS:
        return num_bytes


def _tensor_bytes(files: list[Path]) -> int:
    """The size of the tensors of files without an index. vLLM reads all of them, and keeps one
    tensor of a name."""
    found: dict[str, int] = {}
    for file in files:
        _, tensors = _header(file)
        for name, tensor in tensors.items():
            begin, end = tensor["data_offsets"]
            found[name] = max(end - begin, found.get(name, 0))
    return sum(found.values())


def _named(index: Path) -> set[Path]:
    """The files that an index names; empty where it cannot be read."""
    try:
        names = json.loads(index.read_bytes())["weight_map"].values()
        return {index.parent / name for name in names}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def _check_json(file: Path) -> list[str]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        return [f"{file}: {error.strerror}"]
    except ValueError:
        return [f"{file}: not JSON: truncated, or a Git LFS pointer"]
    return [] if isinstance(content, dict) else [f"{file}: not a JSON object"]


def _check_weights(file: Path) -> list[str]:
    """Compare the file's size with its header."""
    try:
        with file.open("rb") as content:
            if LFS_POINTER.startswith(content.read(8)):
                return [f"{file}: a Git LFS pointer, not the weights; run: git lfs pull"]
        size = file.stat().st_size
        begin, tensors = _header(file)
        ends = [tensor["data_offsets"][1] for tensor in tensors.values()]
        expected = begin + max(ends, default=0)
    except OSError as error:
        return [f"{file}: {error.strerror}"]
    except _NOT_SAFETENSORS:
        return [f"{file}: not a safetensors file"]
    if not ends or size != expected:
        return [f"{file}: incomplete: {size:,} of {expected:,} bytes"]
    return []


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where a safetensors file's data begin, and its tensors by name: 8 bytes of length, a JSON
    header, the data. Of a file that is shorter than its header, no tensors. Raises OSError, and
    ``_NOT_SAFETENSORS`` for another file."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        whole = length <= file.stat().st_size
        header = json.loads(content.read(length)) if whole else {}
        return 8 + length, {k: tensor for k, tensor in header.items() if k != "__metadata__"}


def model_hash(path: Path) -> str:
    """sha256 over the names and contents of the model's files, by name.

    Cached by the files' sizes and times: 16 GB take most of a minute.
    """
    names = files(path)

    def compute() -> str:
        digest = hashlib.sha256()
        for file in names:
            digest.update(f"{hashes.sha256_of(file)}  {name_in(path, file)}\n".encode())
        return digest.hexdigest()

    return hashes.kept(names, compute)


def files(path: Path) -> list[Path]:
    """The files that decide what a model answers, sorted. Weights that no index names are left
    out."""
    found = {file for pattern in ("*.json", "tokenizer.model") for file in path.glob(pattern)}
    return sorted(found.union(file for file in weights(path) if os.path.lexists(file)))


def name_in(folder: Path, file: Path) -> str:
    return os.path.relpath(file, folder)


def convert(gguf: Path, folder: Path) -> None:
    """Dequantize a GGUF file into bfloat16 safetensors, with its tokenizer and config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # transformers refuses to save a model that was quantized, though this one no longer is.
    del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(folder)
