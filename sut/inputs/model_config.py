"""A model's config.json, read as vLLM 0.32 and transformers read it, without either of them.

After vllm/transformers_utils/model_arch_config_convertor.py and the configuration classes of
transformers, whose defaults a saved config leaves out. A layout that is not known here is reported
as unknown, never guessed: vLLM decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sut.inputs import model
from sut.plan.fit import GIB, ModelSize
from sut.plan.kv_cache import KvCache

CONFIG = "config.json"
GENERATION = "generation_config.json"
_MODELOPT = "hf_quant_config.json"  # beside a checkpoint of NVIDIA's ModelOpt

Config = Mapping[str, Any]

# Where a model of several parts keeps its language model's config.
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config")

# Defaults of transformers' classes that are not the usual ones, by the language model's type.
_GEMMA3 = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "head_dim": 256,
    "sliding_window": 4096,
}
_LLAMA = {"num_attention_heads": 32, "num_hidden_layers": 32, "hidden_size": 4096}
_DEFAULTS: dict[str, dict[str, int]] = {
    "llama": _LLAMA,
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256, "num_key_value_heads": 4, "sliding_window": 4096},
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "llama4_text": {
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "num_hidden_layers": 48,
        "hidden_size": 5120,
        "head_dim": 128,
    },
    "qwen2": {**_LLAMA, "num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {**_LLAMA, "num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128},
    "gpt_oss": {"head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128},
    "cohere2": {"sliding_window": 4096},
    "olmo3": {"sliding_window": 4096},
    "mistral": {**_LLAMA, "num_key_value_heads": 8, "sliding_window": 4096},
    "mixtral": {"num_key_value_heads": 8},
}
# Of a config without layer_types: every how manieth layer keeps the whole sequence.
_PATTERN = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2, "olmo3": 4}
# Those whose layers all slide if sliding_window is set.
_ALL_SLIDE = ("mistral", "mixtral", "phi3", "starcoder2")
_OPTIONALLY_SLIDING = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")  # use_sliding_window
# Types whose latent vector vLLM keeps in place of keys and values, where kv_lora_rank is set.
_MLA = ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite", "pangu_ultra_moe", "axk1")
# vLLM keeps the whole sequence of chunked attention too: VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_...
_SLIDING = "sliding_attention"
_WHOLE = ("full_attention", "attention", "chunked_attention")

# Keys of layouts whose cache is not counted here.
_OTHER_LAYOUTS = (
    *("layers_block_type", "hybrid_override_pattern", "block_configs", "attn_layer_period"),
    *("full_attention_interval", "linear_attn_config", "ssm_cfg", "mamba_d_state", "mamba_n_heads"),
    *("index_topk", "compress_ratios", "global_head_dim", "num_kv_shared_layers", "rswa_window"),
    *("per_layer_config", "state_size"),
)


def size(folder: Path) -> ModelSize | None:
    """The size of a model folder in Hugging Face's layout, as far as its files give it; None where
    config.json cannot be read."""
    whole = _read(folder / CONFIG)
    if whole is None:
        return None
    config, quantization = _text(whole), _quantization(folder, whole)
    num_bytes = model.weight_bytes(folder)
    heads = _count(config, "num_attention_heads", "n_head", "n_heads") or 0
    kv: KvCache | None = None
    why = ""
    try:
        kv = _kv_cache(config, heads, _kv_dtype(quantization))
    except ValueError as error:
        why = str(error)
    return ModelSize(
        weights_gib=None if num_bytes is None else num_bytes / GIB,
        weight_bytes=0 if quantization else _width(whole, config),
        quantized=bool(quantization),
        kv=kv,
        kv_unknown=why,
        num_heads=heads,
        num_kv_heads=kv.heads if kv else 0,
        num_layers=_layers(config) or 0,
        max_len=_max_len(config),
    )


def bos_token_id(folder: Path) -> int | None:
    """The id that begins a prompt: config.json's, else generation_config.json's."""
    config, generation = _read(folder / CONFIG) or {}, _read(folder / GENERATION) or {}
    for each in (config, _text(config), generation):
        if (found := _count(each, "bos_token_id")) is not None:
            return found
    return None


def _read(file: Path) -> Config | None:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _text(config: Config) -> Config:
    """The language model's config: what it does not name, the whole model's, else its type's
    default."""
    part = next((config[name] for name in _TEXT if isinstance(config.get(name), dict)), None)
    if part is None:
        return {**_DEFAULTS.get(str(config.get("model_type")), {}), **config}
    return _text({**{k: v for k, v in config.items() if k not in _TEXT}, **part})


def _count(config: Config, *names: str) -> int | None:
    """The first of these keys that is a number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _layers(config: Config) -> int | None:
    return _count(config, "num_hidden_layers", "n_layer", "n_layers")


def _kv_cache(config: Config, heads: int, dtype: str) -> KvCache:
    """Raises ValueError with the reason where it is unknown."""
    kind = str(config.get("model_type"))
    layers = _layers(config)
    if not heads or not layers:
        raise ValueError("config.json does not give the numbers of layers and attention heads")
    if config.get("is_encoder_decoder"):
        raise ValueError("the model has an encoder and a decoder")
    if other := next((key for key in _OTHER_LAYOUTS if config.get(key)), None):
        raise ValueError(f"the layout of {kind} is not known ({other})")
    if (rank := _count(config, "kv_lora_rank")) is not None:
        rope = _count(config, "qk_rope_head_dim")
        if kind not in _MLA or rope is None:
            raise ValueError(f"the layout of {kind} is not known (kv_lora_rank)")
        return KvCache(heads=0, values=rank + rope, layers=layers, dtype=dtype)
    hidden = _count(config, "hidden_size", "n_embd", "d_model")
    head_dim = _count(config, "head_dim") or (hidden // heads if hidden else 0)
    if not head_dim:
        raise ValueError("config.json gives neither head_dim nor hidden_size")
    sliding, window = _sliding(config, kind, layers)
    return KvCache(
        heads=_kv_heads(config, heads),
        values=2 * head_dim,
        layers=layers - sliding,
        sliding_layers=sliding,
        window=window,
        dtype=dtype,
    )


def _kv_heads(config: Config, heads: int) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        groups = _count(config, "multi_query_group_num", "num_key_value_heads")
        return groups or 1
    names = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num")
    attention = config.get("attn_config")
    own = _count(attention, "kv_n_heads") if isinstance(attention, dict) else None
    return own or _count(config, *names, "num_attention_groups") or heads


def _sliding(config: Config, kind: str, layers: int) -> tuple[int, int]:
    """How many layers keep a window only, and its tokens. Raises ValueError."""
    window = _count(config, "sliding_window") or 0
    types = config.get("layer_types")
    if isinstance(types, list):
        if other := next((each for each in types if each not in (*_WHOLE, _SLIDING)), None):
            raise ValueError(f"the cache of layers of type {other} is not known")
        count = types.count(_SLIDING) if window else 0
    elif not window or not config.get("use_sliding_window", kind not in _OPTIONALLY_SLIDING):
        count = 0
    elif kind in _ALL_SLIDE:
        count = layers
    elif kind in _PATTERN:
        count = layers - layers // (_count(config, "sliding_window_pattern") or _PATTERN[kind])
    else:
        raise ValueError(f"which layers of {kind} have the sliding_window is not known")
    # vLLM keeps one token more for this type.
    return count, (window + (kind == "cohere2")) if count else 0


def _quantization(folder: Path, config: Config) -> Config:
    """The checkpoint's quantization; empty for none."""
    for each in (config, _text(config)):
        for key in ("quantization_config", "compression_config"):
            if isinstance(found := each.get(key), dict):
                return found
    return _read(folder / _MODELOPT) or {}


def _kv_dtype(quantization: Config) -> str:
    """The checkpoint's format of the KV cache, by vLLM's name; empty for the engine's."""
    inner = quantization.get("quantization")
    for each in (inner if isinstance(inner, dict) else {}, quantization):
        scheme = each.get("kv_cache_scheme") or each.get("kv_cache_quant_algo")
        if isinstance(scheme, dict):
            return "fp8" if scheme.get("num_bits") == 8 else "unknown (kv_cache_scheme)"
        if scheme:
            return str(scheme).lower()
    return ""


def _width(*configs: Config) -> int:
    """The bytes of a stored weight; 0 where no config gives them."""
    known = {"float32": 4, "float16": 2, "bfloat16": 2}
    named = (config.get(key) for config in configs for key in ("dtype", "torch_dtype"))
    return next((known[each] for each in named if each in known), 0)


def _max_len(config: Config) -> int | None:
    """The longest sequence of a model, as vLLM derives it; None where a scaled rotary embedding may
    extend it."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict) or any(isinstance(each, dict) for each in rope.values()):
        return None
    if (rope.get("rope_type") or rope.get("type") or "default") not in ("default", "llama3"):
        return None
    longest = _count(config, "max_position_embeddings")
    return max(longest, _count(config, "model_max_length") or 0) if longest else None
