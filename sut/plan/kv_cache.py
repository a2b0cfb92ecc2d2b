"""The KV cache of one sequence on one rank, as vLLM 0.32 allocates it. Pure.

After ``max_memory_usage_bytes`` of vllm/v1/kv_cache_interface.py and the groups of layers that
vllm/v1/core/kv_cache_utils.py forms of a model with two kinds of layers.
"""

from __future__ import annotations

import math

from sut.plan import engine_args
from sut.plan.benchmark import Dtype, Engine
from sut.values import Struct

BLOCK_TOKENS = 16  # vLLM's default --block-size
_OF_ONE_BYTE = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")
_OF_TWO_BYTES = ("float16", "bfloat16")
# With these options a token takes less or more than its values.
_UNCOUNTED = (
    "--kv-cache-dtype-skip-layers",
    "--decode-context-parallel-size",
    "-dcp",
    "--kv-offloading-size",
)


class KvCache(Struct, frozen=True, kw_only=True):
    """What a model's layers keep of each token."""

    heads: int  # key-value heads, split over the ranks; 0: one latent vector, whole on each (MLA)
    values: int  # of a head: its keys and values together, or the latent vector
    layers: int  # that keep the whole sequence
    sliding_layers: int = 0  # that keep the last `window` tokens
    window: int = 0
    dtype: str = ""  # the checkpoint's, by vLLM's name; empty: the engine's


def sequence_bytes(kv: KvCache, engine: Engine) -> int:
    """The bytes on each rank for one sequence of ``engine.max_model_len`` tokens. Raises ValueError
    with the reason where they are unknown."""
    token_bytes = max(1, kv.heads // engine.tensor_parallel_size) * kv.values * _width(kv, engine)
    stages = engine.pipeline_parallel_size
    block = _block_tokens(engine)
    whole = math.ceil(engine.max_model_len / block)
    disabled = engine_args.has(engine.extra_args, "--disable-hybrid-kv-cache-manager")
    if kv.sliding_layers == 0 or (disabled and kv.layers > 0):
        layers = math.ceil((kv.layers + kv.sliding_layers) / stages)
        return layers * whole * block * token_bytes
    # Each step in flight keeps its tokens, and a window may begin inside a block.
    in_flight = (stages + 1) * engine.max_num_batched_tokens
    kept = min(kv.window - 1 + in_flight, engine.max_model_len)
    sliding = math.ceil(kept / block) + 1
    kinds = [(n, blocks) for n, blocks in ((kv.layers, whole), (kv.sliding_layers, sliding)) if n]
    least, most = min(kinds)[0], max(kinds)[0]
    # Groups have equal numbers of layers; the last one of a kind is padded.
    group = most if most < 1.5 * least else least
    blocks = sum(math.ceil(layers / group) * blocks for layers, blocks in kinds)
    return math.ceil(group / stages) * blocks * block * token_bytes


def _width(kv: KvCache, engine: Engine) -> int:
    """The bytes of a value."""
    for option in _UNCOUNTED:
        if engine_args.has(engine.extra_args, option):
            raise ValueError(f"{option} changes it")
    given = engine_args.value(engine.extra_args, "--kv-cache-dtype") or "auto"
    dtype = (kv.dtype if given == "auto" else given) or ""
    if dtype == "":
        return 4 if engine.dtype in (Dtype.FLOAT, Dtype.FLOAT32) else 2
    if dtype in _OF_ONE_BYTE:
        return 1
    if dtype in _OF_TWO_BYTES:
        return 2
    raise ValueError(f"its format is {dtype}")


def _block_tokens(engine: Engine) -> int:
    given = engine_args.value(engine.extra_args, "--block-size") or ""
    return int(given) if given.isdecimal() and int(given) else BLOCK_TOKENS
