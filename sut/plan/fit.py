"""Whether a model fits its engines: their ranks, lengths and memory. Estimated; vLLM decides."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sut.errors import Errors
from sut.plan.benchmark import Engine
from sut.plan.site import Device, Site, SiteNode
from sut.units import quantity
from sut.values import Struct

GPU_MEMORY_UTILIZATION = 0.92  # vLLM's default share of a GPU's memory
GIB = 2**30
_ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


class ModelSize(Struct, frozen=True, kw_only=True):
    """What decides whether a model fits."""

    weights_gib: float  # 0: unknown
    kv_bytes_per_token: int
    num_heads: int  # attention heads; tensor parallelism divides them
    num_kv_heads: int
    num_layers: int  # pipeline parallelism divides them
    max_len: int | None = None  # the longest sequence; None: unknown


def model_size(path: Path) -> ModelSize | None:
    """The size of a model folder in Hugging Face's layout; None if it cannot be read."""
    try:
        config = json.loads((path / "config.json").read_bytes())
        weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
        max_len = _max_len(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    two_bytes = 2  # each value of the KV cache has 16 bits
    return ModelSize(
        weights_gib=weights / GIB,
        kv_bytes_per_token=2 * layers * kv_heads * head_dim * two_bytes,
        num_heads=heads,
        num_kv_heads=kv_heads,
        num_layers=layers,
        max_len=max_len,
    )


def _max_len(config: dict[str, Any]) -> int | None:
    """The longest sequence of a model, as vLLM derives it; None where a scaled rotary embedding may
    extend it."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "llama3") or any(isinstance(each, dict) for each in rope.values()):
        return None
    longest = config.get("max_position_embeddings")
    return max(int(longest), int(config.get("model_max_length") or 0)) if longest else None


def utilization(extra_args: Sequence[str]) -> float:
    """The share of a GPU's memory that vLLM takes with these arguments."""
    words = [word for arg in extra_args for word in arg.split("=", 1)]
    with contextlib.suppress(ValueError, IndexError):
        return float(words[words.index("--gpu-memory-utilization") + 1])
    return GPU_MEMORY_UTILIZATION


def check_model(
    size: ModelSize, engine: Engine, site: Site, nodes: Iterable[SiteNode], errors: Errors
) -> None:
    """Add to ``errors`` what prevents this engine from running the model on these nodes."""
    _check_split(size, engine, errors)
    max_len = None if site.env.get(_ALLOW_LONG, "").lower() in ("1", "true") else size.max_len
    if max_len is not None and engine.max_model_len > max_len:
        errors.add(
            f"engine.max_model_len {engine.max_model_len} exceeds the model's {max_len} "
            "(max_position_embeddings)",
            hint=f"--set engine.max_model_len={max_len}",
        )
    node = next((node for node in nodes if not fits(size, engine, site, node)), None)
    if node is not None:
        whole, usable = _needed_gib(size, engine), _usable_gib(engine, node)
        least, ranks = math.ceil(whole / usable), _ranks(engine)
        errors.add(
            f"the model does not fit on {node.name or 'a node'}: it needs {whole / ranks:.1f} GiB "
            f"per GPU ({size.weights_gib:.1f} GiB of weights and {whole - size.weights_gib:.1f} "
            f"GiB of KV cache for a sequence of {engine.max_model_len} tokens, on "
            f"{quantity(ranks, 'GPUs')}), and vLLM uses {usable:.1f} of {node.gpu_memory_gib:g} "
            "GiB",
            hint=f"use at least {quantity(least, 'GPUs')}: "
            f"--set engine.tensor_parallel_size={1 << (least - 1).bit_length()}",
        )


def fits(size: ModelSize, engine: Engine, site: Site, node: SiteNode) -> bool:
    """Whether the GPUs of a node have memory for the weights and one sequence; true if their
    memory or the size of the weights is unknown."""
    if site.device is not Device.CUDA or not node.gpu_memory_gib or not size.weights_gib:
        return True
    return _needed_gib(size, engine) / _ranks(engine) <= _usable_gib(engine, node)


def _needed_gib(size: ModelSize, engine: Engine) -> float:
    return size.weights_gib + size.kv_bytes_per_token * engine.max_model_len / GIB


def _usable_gib(engine: Engine, node: SiteNode) -> float:
    return node.gpu_memory_gib * utilization(engine.extra_args)


def _ranks(engine: Engine) -> int:
    return engine.tensor_parallel_size * engine.pipeline_parallel_size


def _check_split(size: ModelSize, engine: Engine, errors: Errors) -> None:
    tp, pp = engine.tensor_parallel_size, engine.pipeline_parallel_size
    if not _divides(tp, size):
        what = f"{size.num_heads} attention heads"
        if size.num_heads % tp == 0:
            what = f"{size.num_kv_heads} key-value heads, nor is it a multiple of them"
        fitting = [n for n in range(1, size.num_heads + 1) if _divides(n, size)]
        errors.add(
            f"engine.tensor_parallel_size {tp} does not divide the model's {what}",
            hint=f"--set engine.tensor_parallel_size=N with N in {', '.join(map(str, fitting))}",
        )
    if pp > size.num_layers:
        errors.add(
            f"engine.pipeline_parallel_size {pp} exceeds the model's {size.num_layers} layers",
            hint=f"--set engine.pipeline_parallel_size={size.num_layers}",
        )


def _divides(tp: int, size: ModelSize) -> bool:
    """vLLM's rule: ranks split the attention heads, and split or share the key-value heads."""
    kv_heads = size.num_kv_heads
    return size.num_heads % tp == 0 and (kv_heads % tp == 0 or tp % kv_heads == 0)
