"""Give a model more attention heads that compute nothing, so that tensor parallelism divides them.

For a model in Hugging Face's layout that names its projections like Llama. The new heads have zero
rows in q, k and v and zero columns in o, so the function stays the same.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

PROJECTION = re.compile(r"\.self_attn\.([qkvo])_proj\.(weight|bias)$")
INDEX = "model.safetensors.index.json"


def pad(model: Path, out: Path, heads: int, kv_heads: int) -> None:
    """Write the padded ``model`` to the new folder ``out``. Raises ValueError for numbers of heads
    that would change the function."""
    from safetensors.torch import load_file, save_file

    config = _pad_config(json.loads((model / "config.json").read_bytes()), heads, kv_heads)
    head_dim = config["head_dim"]
    out.mkdir(parents=True)
    for file in sorted(model.iterdir()):
        if file.suffix != ".safetensors" and file.name not in ("config.json", INDEX):
            shutil.copy(file, out / file.name)
    size = 0
    for shard in sorted(model.glob("*.safetensors")):
        tensors = {
            name: _pad_tensor(name, tensor, heads * head_dim, kv_heads * head_dim)
            for name, tensor in load_file(shard).items()
        }
        size += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, out / shard.name, {"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if (model / INDEX).is_file():
        index = json.loads((model / INDEX).read_bytes())
        index.setdefault("metadata", {})["total_size"] = size
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _pad_config(config: dict[str, Any], heads: int, kv_heads: int) -> dict[str, Any]:
    old_heads = config["num_attention_heads"]
    old_kv_heads = config.get("num_key_value_heads") or old_heads
    if heads < old_heads or heads * old_kv_heads != kv_heads * old_heads:
        raise ValueError(
            f"cannot pad a model with {old_heads} heads and {old_kv_heads} KV heads to {heads} and "
            f"{kv_heads}: the number of heads per KV head must not change"
        )
    return {
        **config,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        # By default it is derived from the number of heads.
        "head_dim": config.get("head_dim") or config["hidden_size"] // old_heads,
    }


def _pad_tensor(name: str, tensor: Any, width: int, kv_width: int) -> Any:
    """``tensor`` with zeros for the new heads, if it is one of attention's projections."""
    found = PROJECTION.search(name)
    if found is None:
        return tensor
    projection, kind = found.groups()
    if projection == "o" and kind == "bias":
        return tensor
    dimension = 1 if projection == "o" else 0
    wanted = width if projection in "qo" else kv_width
    shape = list(tensor.shape)
    shape[dimension] = wanted - shape[dimension]
    import torch

    return torch.cat([tensor, tensor.new_zeros(shape)], dimension).contiguous()
