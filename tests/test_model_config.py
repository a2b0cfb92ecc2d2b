"""What a model needs, from its files as people have them: compared with transformers and vLLM."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import environment, set_arguments, submit
from test_fit import engine_of
from test_model import header

from sut.errors import InputError
from sut.inputs import dataset, model, model_config
from sut.plan.fit import GIB, ModelSize
from sut.plan.kv_cache import KvCache, sequence_bytes

LLAMA: dict[str, Any] = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "bos_token_id": 1,
}
# As google/gemma-3-12b-it's: what the class has by default is left out.
GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "eos_token_id": [1, 106],
    "text_config": {
        "hidden_size": 3840,
        "model_type": "gemma3_text",
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
}
DEEPSEEK_V2_LITE: dict[str, Any] = {
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "kv_lora_rank": 512,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
GPT_OSS: dict[str, Any] = {
    "model_type": "gpt_oss",
    "head_dim": 64,
    "hidden_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "num_attention_heads": 64,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "quantization_config": {"quant_method": "mxfp4"},
    "sliding_window": 128,
}


def sparse(file: Path, gib: float, tensor: str = "") -> None:
    """A safetensors file of this size, of which only the head is written. Its tensor has the
    file's name by default."""
    head = header(int(gib * GIB), tensor or file.name)
    file.write_bytes(head)
    with file.open("r+b") as content:
        content.truncate(len(head) + int(gib * GIB))


def folder(path: Path, config: dict[str, Any], *shards_gib: float, **files: object) -> Path:
    """A model folder with its shards, their index, and these JSON files."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
    for name, content in {"config": config, "tokenizer": tokenizer, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    names = [
        f"model-{i + 1:05}-of-{len(shards_gib):05}.safetensors" for i in range(len(shards_gib))
    ]
    for name, gib in zip(names, shards_gib, strict=True):
        sparse(path / name, gib)
    index = {"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}}
    (path / model.INDEX).write_text(json.dumps(index))
    return path


def size_of(path: Path, config: dict[str, Any], **files: object) -> ModelSize:
    found = model_config.size(folder(path, config, 1, **files))
    assert found is not None
    return found


def kv_of(path: Path, config: dict[str, Any], **files: object) -> KvCache:
    found = size_of(path, config, **files)
    assert found.kv is not None, found.kv_unknown
    return found.kv


def dry_run(tmp_path: Path, path: Path, gib: int, *sets: str, gpus: int = 1) -> str:
    """What a dry run prints of a plan with this model on GPUs of this memory."""
    (tmp_path / "data.json").write_text("[]")
    (tmp_path / "site.yaml").write_text(
        f"name: s\ndevice: cuda\nnodes: [{{name: g1, gpus: {gpus}, gpu_memory_gib: {gib}}}]\n"
        f"run_root: {tmp_path}/runs\ncache: {tmp_path}/cache\nmodels: {{M: {path}}}\n"
        f"datasets: {{cnn_eval.json: {tmp_path}/data.json}}\nslurm: {{gres: gpu}}\n"
    )
    changes = ["model.name=M", 'dataset.sha256=""', *sets]
    arguments = ["--config", "llama3.1-8b", "--site", str(tmp_path / "site.yaml")]
    arguments += ["--scenario", "offline", "--dry-run", *set_arguments(changes)]
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    run = submit(tmp_path, *arguments, env=environment(PATH=f"{tmp_path}:/usr/bin:/bin"))
    return run.stdout + run.stderr


def test_weights_that_are_there_twice_count_once(tmp_path: Path) -> None:
    """Mistral-7B has its shards, and all of them again in one file."""
    path = folder(tmp_path / "m", LLAMA, 4.6, 4.6, 4.3)
    sparse(path / "consolidated.safetensors", 13.5)
    size = model_config.size(path)
    assert size is not None and size.weights_gib == pytest.approx(13.5, abs=0.01)
    printed = dry_run(tmp_path, path, 24)
    assert "13.5 GiB of weights" in printed and "does not fit" not in printed


@pytest.mark.parametrize("other", ["old-00001-of-00001.safetensors", "adapter_model.safetensors"])
def test_files_that_no_index_names_are_not_weights(tmp_path: Path, other: str) -> None:
    path = folder(tmp_path / "m", LLAMA, 4.6, 4.6, 4.3)
    before = model.files(path)
    sparse(path / other, 13.5)
    assert model.files(path) == before
    size = model_config.size(path)
    assert size is not None and size.weights_gib == pytest.approx(13.5, abs=0.01)


def test_mistrals_own_index_names_its_files(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", LLAMA, 4.6, 4.6, 4.3)
    for name, gib in (("consolidated-1", 7), ("consolidated-2", 6.5), ("consolidated-old", 13)):
        sparse(path / f"{name}.safetensors", gib)
    names = {"a": "consolidated-1.safetensors", "b": "consolidated-2.safetensors"}
    (path / model.CONSOLIDATED_INDEX).write_text(json.dumps({"weight_map": names}))
    size = model_config.size(path)
    assert size is not None and size.weights_gib == pytest.approx(13.5, abs=0.01)
    assert path / "consolidated-old.safetensors" not in model.files(path)


def test_without_an_index_every_file_is_weights(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", LLAMA, 2, 3)
    (path / model.INDEX).unlink()
    size = model_config.size(path)
    assert size is not None and size.weights_gib == pytest.approx(5, abs=0.01)
    assert model.check(path) == []


@pytest.mark.parametrize("name", ["model.safetensors", "model.fp16.safetensors"])
def test_without_an_index_a_tensor_counts_once(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path / "m", LLAMA, 2, 3)
    (path / model.INDEX).unlink()
    sparse(path / name, 2.5, tensor="model-00001-of-00002.safetensors")
    size = model_config.size(path)
    assert size is not None and size.weights_gib == pytest.approx(5.5, abs=0.01)
    (path / name).write_bytes(b"not weights")
    size = model_config.size(path)
    assert size is not None and size.weights_gib == pytest.approx(5, abs=0.01)


def test_a_missing_shard_leaves_the_size_unknown(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", LLAMA, 2, 3)
    (path / "model-00002-of-00002.safetensors").unlink()
    size = model_config.size(path)
    assert size is not None and size.weights_gib is None


def test_the_hash_covers_what_the_index_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = folder(tmp_path / "m", LLAMA, 1 / GIB * 100)
    (path / "parts").mkdir()
    sparse(path / "parts" / "w.safetensors", 1 / GIB * 50)
    (path / model.INDEX).write_text(json.dumps({"weight_map": {"w": "parts/w.safetensors"}}))
    before = model.model_hash(path)
    (path / "model-00001-of-00001.safetensors").unlink()  # not named
    assert model.model_hash(path) == before
    sparse(path / "parts" / "w.safetensors", 1 / GIB * 51)
    assert model.model_hash(path) != before
    sparse(path / "consolidated.safetensors", 1 / GIB * 50)  # vLLM prefers it
    with_both = model.model_hash(path)
    sparse(path / "consolidated.safetensors", 1 / GIB * 49)
    assert model.model_hash(path) != with_both


def test_a_nested_config_is_read(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", GEMMA3, 22.7, generation_config={"bos_token_id": 2})
    assert model_config.bos_token_id(path) == 2
    expected = KvCache(heads=8, values=512, layers=8, sliding_layers=40, window=1024)
    size = model_config.size(path)
    assert size is not None and size.kv == expected
    printed = dry_run(tmp_path, path, 24, gpus=2)
    assert "22.7 GiB of weights" in printed and "vLLM uses 22.1 of 24 GiB" in printed
    assert "--set engine.tensor_parallel_size=2" in printed
    override = dry_run(tmp_path, path, 24, "site.check_fit=false", gpus=2)
    assert "does not fit" not in override
    assert re.search(r"- +memory +not checked: site.check_fit is false", override)


def test_a_text_config_without_a_type_has_the_models(tmp_path: Path) -> None:
    text = {k: v for k, v in GEMMA3["text_config"].items() if k not in ("model_type",)}
    kv = kv_of(tmp_path, {**GEMMA3, "text_config": text})
    assert (kv.values, kv.sliding_layers) == (512, 40)


@pytest.mark.parametrize("part", ["llm_config", "language_config"])
def test_other_names_of_a_nested_config(tmp_path: Path, part: str) -> None:
    nested = {"model_type": "x", part: {**LLAMA, "model_type": "llama"}}
    assert kv_of(tmp_path, nested) == KvCache(heads=8, values=256, layers=32)


def test_a_config_is_nested_twice(tmp_path: Path) -> None:
    """As Qwen/Qwen2.5-Omni-7B's, whose talker is another language model."""
    config = {
        "model_type": "qwen2_5_omni",
        "talker_config": {"num_attention_heads": 12, "num_hidden_layers": 24},
        "thinker_config": {
            "model_type": "qwen2_5_omni_thinker",
            "text_config": {**LLAMA, "model_type": "qwen2_5_omni_text", "bos_token_id": 151644},
        },
    }
    assert kv_of(tmp_path, config) == KvCache(heads=8, values=256, layers=32)
    assert model_config.bos_token_id(tmp_path) == 151644


def test_a_nested_config_has_the_defaults_of_its_type(tmp_path: Path) -> None:
    """As llava-hf/llava-1.5-7b-hf's, which gives the language model's type only."""
    vision = {"num_attention_heads": 16, "num_hidden_layers": 24, "hidden_size": 1024}
    config = {"text_config": {"model_type": "llama"}, "vision_config": vision}
    assert kv_of(tmp_path, config) == KvCache(heads=32, values=256, layers=32)


def test_bos_is_the_configs_before_the_generations(tmp_path: Path) -> None:
    both = {"generation_config": {"bos_token_id": 9}}
    assert model_config.bos_token_id(folder(tmp_path / "a", LLAMA, **both)) == 1
    nested = {"text_config": {"bos_token_id": 5}, "bos_token_id": None}
    assert model_config.bos_token_id(folder(tmp_path / "b", nested, **both)) == 5
    without = folder(tmp_path / "c", {})
    with pytest.raises(InputError, match=r"no bos_token_id in config.json or generation_config"):
        dataset._bos(without)


def test_mla_keeps_one_latent_vector(tmp_path: Path) -> None:
    assert kv_of(tmp_path, DEEPSEEK_V2_LITE) == KvCache(heads=0, values=576, layers=27)
    size = size_of(tmp_path, DEEPSEEK_V2_LITE)
    assert size.kv is not None
    one, four = (sequence_bytes(size.kv, engine_of(tp)) for tp in (1, 4))
    assert one == four == 27 * 2672 * 576 * 2


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"model_type": "falcon", "multi_query": True}, 1),
        ({"multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 4}, 4),
        ({"multi_query_attention": True, "multi_query_group_num": 2}, 2),
        ({"attn_config": {"kv_n_heads": 8}}, 8),
        ({"num_key_value_heads": None}, 32),
    ],
)
def test_key_value_heads_have_many_names(
    tmp_path: Path, config: dict[str, Any], heads: int
) -> None:
    plain = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    assert kv_of(tmp_path, {**plain, **config}).heads == heads


@pytest.mark.parametrize(
    ("config", "sliding"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, (32, 4096)),
        ({"model_type": "mistral", "sliding_window": None}, (0, 0)),
        ({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": False}, (0, 0)),
        ({"model_type": "qwen2", "sliding_window": 9}, (0, 0)),
        ({"model_type": "new", "sliding_window": 9, "use_sliding_window": False}, (0, 0)),
        ({"model_type": "gemma2", "head_dim": 256, "sliding_window": 9}, (16, 9)),
        ({"model_type": "cohere2", "sliding_window": 9}, (24, 10)),
        ({"layer_types": ["chunked_attention", "full_attention"] * 16}, (0, 0)),
        ({"layer_types": ["sliding_attention"] * 32, "sliding_window": 9}, (32, 9)),
    ],
)
def test_sliding_layers_are_told_apart(
    tmp_path: Path, config: dict[str, Any], sliding: tuple[int, int]
) -> None:
    kv = kv_of(tmp_path, {**LLAMA, **config})
    assert (kv.sliding_layers, kv.window) == sliding and kv.layers == 32 - sliding[0]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "new", "sliding_window": 9}, "which layers of new have the sliding_window"),
        ({"layer_types": ["linear_attention", "full_attention"] * 16}, "type linear_attention"),
        ({"model_type": "bamba", "mamba_d_state": 128}, r"the layout of bamba is not known \(mam"),
        ({"model_type": "minicpm3", "kv_lora_rank": 256}, r"minicpm3 is not known \(kv_lora_rank"),
        ({**DEEPSEEK_V2_LITE, "index_topk": 2048}, "index_topk"),
        ({"is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"num_attention_heads": None}, "numbers of layers and attention heads"),
    ],
)
def test_a_cache_that_is_not_understood_is_not_guessed(
    tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    size = size_of(tmp_path, {**LLAMA, **config})
    assert size.kv is None and size.weights_gib == pytest.approx(1, abs=0.01)
    with pytest.raises(AssertionError, match=why):
        kv_of(tmp_path, {**LLAMA, **config})


@pytest.mark.parametrize(
    ("config", "files", "dtype"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, {}, ""),
        ({"quantization_config": {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}}, {}, "fp8"),
        ({}, {"hf_quant_config": {"quantization": {"kv_cache_quant_algo": "FP8"}}}, "fp8"),
        ({"text_config": {**LLAMA, "quantization_config": {"quant_method": "fp8"}}}, {}, ""),
    ],
)
def test_a_quantized_checkpoint_is_recognized(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], dtype: str
) -> None:
    size = size_of(tmp_path, {**LLAMA, "torch_dtype": "float16", **config}, **files)
    assert size.quantized and size.weight_bytes == 0
    assert size.kv is not None and size.kv.dtype == dtype


@pytest.mark.parametrize(("stored", "width"), [("float32", 4), ("bfloat16", 2), ("int8", 0)])
def test_the_stored_weights_have_their_width(tmp_path: Path, stored: str, width: int) -> None:
    assert size_of(tmp_path, {**LLAMA, "torch_dtype": stored}).weight_bytes == width
    nested = {"text_config": {**LLAMA, "dtype": stored}}
    assert size_of(tmp_path, nested).weight_bytes == width


def test_reads_a_models_lengths(tmp_path: Path) -> None:
    rope = {"max_position_embeddings": 131_072, "rope_scaling": {"rope_type": "llama3"}}
    assert size_of(tmp_path, {**LLAMA, **rope}).max_len == 131_072
    assert model_config.size(tmp_path / "missing") is None
    scaled = {"rope_type": "linear", "factor": 4.0}
    for changes in (
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_scaling": scaled},
        {"rope_parameters": {"full_attention": scaled}},
    ):
        assert size_of(tmp_path, {**LLAMA, **rope, **changes}).max_len is None


def test_the_defaults_are_those_of_transformers() -> None:
    from transformers import CONFIG_MAPPING

    for kind, defaults in model_config._DEFAULTS.items():
        config = CONFIG_MAPPING["gemma3_text" if kind == "gemma3" else kind]()
        for key, value in defaults.items():
            if key == "sliding_window" and kind in model_config._OPTIONALLY_SLIDING:
                config = CONFIG_MAPPING[kind](use_sliding_window=True)
            assert getattr(config, key) == value, (kind, key)
    for kind, every in model_config._PATTERN.items():
        config = CONFIG_MAPPING["gemma3_text" if kind == "gemma3" else kind](num_hidden_layers=24)
        whole = [i for i, each in enumerate(config.layer_types) if each == "full_attention"]
        assert whole == list(range(every - 1, 24, every)), kind


# vLLM's own arithmetic, for the layers of a model on one rank.
OF_VLLM = """
import json, sys
from types import SimpleNamespace as Of
import torch
from vllm.v1.core import kv_cache_utils as utils
from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec

def size(given):
    dtype = getattr(torch, given["dtype"])
    common = {"block_size": 16, "dtype": dtype}
    specs = {}
    for layer in range(given["layers"] + given["sliding"]):
        if given["heads"] == 0:
            spec = MLAAttentionSpec(num_kv_heads=1, head_size=given["values"], **common)
        else:
            common |= {"num_kv_heads": given["heads"], "head_size": given["values"] // 2}
            spec = FullAttentionSpec(**common)
            if layer < given["sliding"]:
                spec = SlidingWindowSpec(sliding_window=given["window"], **common)
        specs[f"model.layers.{layer}.attn"] = spec
    config = Of(
        max_in_flight_tokens=2 * given["max_num_batched_tokens"],
        model_config=Of(max_model_len=given["max_model_len"]),
        parallel_config=Of(decode_context_parallel_size=1),
    )
    if utils.is_kv_cache_spec_uniform(specs):
        groups = utils._get_kv_cache_groups_uniform_spec(specs)
    else:
        groups = utils._get_kv_cache_groups_uniform_page_size(specs)
    blocks = 0
    for group in groups:
        spec = group.kv_cache_spec
        blocks += -(-spec.max_memory_usage_bytes(config) // spec.page_size_bytes)
    layers = max(len(group.layer_names) for group in groups)
    return blocks * layers * groups[0].kv_cache_spec.page_size_bytes

print(json.dumps([size(each) for each in json.load(sys.stdin)]))
"""

CONFIGS = {
    "llama": LLAMA,
    "gemma3": GEMMA3,
    "gpt_oss": GPT_OSS,
    "deepseek_v2": DEEPSEEK_V2_LITE,
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": 4096},
    # 10 layers keep the whole sequence and 52 do not: the last group is padded.
    "gemma3-27b": {
        **GEMMA3,
        "text_config": {
            **GEMMA3["text_config"],
            "num_attention_heads": 32,
            "num_hidden_layers": 62,
            "num_key_value_heads": 16,
            "head_dim": 128,
        },
    },
    # Nearly as many of one kind as of the other.
    "even": {**LLAMA, "layer_types": ["sliding_attention"] * 17 + ["full_attention"] * 15}
    | {"sliding_window": 300},
}

# What vLLM takes from a folder's config.json, read by transformers.
READ_BY_VLLM = """
import json, sys
import vllm.config  # first: the other module imports it, and is imported by it
from transformers import AutoConfig
from vllm.transformers_utils.model_arch_config_convertor import (
    MODEL_ARCH_CONFIG_CONVERTORS, ModelArchConfigConvertorBase,
)

def read(folder):
    config = AutoConfig.from_pretrained(folder)
    text = config.get_text_config()
    kind = MODEL_ARCH_CONFIG_CONVERTORS.get(config.model_type, ModelArchConfigConvertorBase)
    found = kind(config, text).convert()
    window = getattr(text, "sliding_window", None)
    types = getattr(text, "layer_types", None)
    if types is None:  # vLLM then gives each layer the window
        types = ["sliding_attention"] * found.total_num_hidden_layers
    return {
        "layers": found.total_num_hidden_layers,
        "heads": found.total_num_attention_heads,
        "kv_heads": found.total_num_kv_heads,
        "head_size": found.head_size,
        "mla": found.is_deepseek_mla,
        "sliding": types.count("sliding_attention") if window else 0,
        "window": window or 0,
    }

print(json.dumps([read(folder) for folder in json.load(sys.stdin)]))
"""

# The config.json of models as they are published, without what decides nothing here.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {**LLAMA, "model_type": "llama", "max_position_embeddings": 131_072},
    "Llama-3.2-1B": {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 16,
        "head_dim": 64,
    },
    "Mistral-7B-v0.1": {**LLAMA, "model_type": "mistral", "sliding_window": 4096},
    "Mistral-7B-v0.3": {**LLAMA, "model_type": "mistral", "sliding_window": None},
    "Mistral-Nemo": {
        **LLAMA,
        "model_type": "mistral",
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "head_dim": 128,
        "sliding_window": None,
    },
    "Mistral-Small-3.1": {
        "model_type": "mistral3",
        "vision_config": {"model_type": "pixtral"},
        "text_config": {
            "model_type": "mistral",
            "hidden_size": 5120,
            "head_dim": 128,
            "num_hidden_layers": 40,
            "sliding_window": None,
        },
    },
    "Mixtral-8x7B": {**LLAMA, "model_type": "mixtral", "sliding_window": None},
    "Qwen2.5-7B": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": 28,
        "max_window_layers": 28,
        "sliding_window": 131_072,
        "use_sliding_window": False,
    },
    "Qwen3-8B": {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "head_dim": 128,
        "num_key_value_heads": 8,
        "num_hidden_layers": 36,
        "max_window_layers": 36,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "num_hidden_layers": 48,
        "head_dim": 128,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "gemma-2-9b": {
        "model_type": "gemma2",
        "hidden_size": 3584,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_hidden_layers": 42,
        "head_dim": 256,
        "sliding_window": 4096,
    },
    # Its heads are the class's defaults.
    "gemma-3-4b": {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "num_hidden_layers": 34,
            "sliding_window": 1024,
        },
    },
    "gemma-3-12b": GEMMA3,
    "gpt-oss-120b": GPT_OSS,
    "DeepSeek-V2-Lite": DEEPSEEK_V2_LITE,
    "DeepSeek-R1": {
        **DEEPSEEK_V2_LITE,
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "num_hidden_layers": 61,
    },
    "Llama-4-Scout": {
        "model_type": "llama4",
        "text_config": {
            "model_type": "llama4_text",
            "hidden_size": 5120,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "num_hidden_layers": 48,
            "head_dim": 128,
            "attention_chunk_size": 8192,
        },
    },
    "Phi-3-mini-4k": {
        "model_type": "phi3",
        "hidden_size": 3072,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "num_hidden_layers": 32,
        "sliding_window": 2047,
    },
    "command-r7b": {
        "model_type": "cohere2",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 32,
        "sliding_window": 4096,
    },
    "falcon-7b": {
        "model_type": "falcon",
        "hidden_size": 4544,
        "num_attention_heads": 71,
        "num_hidden_layers": 32,
        "multi_query": True,
    },
    "falcon-40b": {
        "model_type": "falcon",
        "hidden_size": 8192,
        "num_attention_heads": 128,
        "num_hidden_layers": 60,
        "num_kv_heads": 8,
        "new_decoder_architecture": True,
    },
    "llava-1.5": {"model_type": "llava", "text_config": {"model_type": "llama"}},
}


def of_vllm(program: str, given: object) -> Any:
    """What a program prints that imports vLLM."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=msgspec.json.encode(given),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def test_configs_are_read_as_vllm_reads_them(tmp_path: Path) -> None:
    folders = {name: str(folder(tmp_path / name, each)) for name, each in PUBLISHED.items()}
    for name, expected in zip(folders, of_vllm(READ_BY_VLLM, [*folders.values()]), strict=True):
        size = model_config.size(Path(folders[name]))
        assert size is not None and size.kv is not None, name
        kv = size.kv
        found = {
            "layers": kv.layers + kv.sliding_layers,
            "heads": size.num_heads,
            "kv_heads": expected["kv_heads"] if kv.heads == 0 else kv.heads,
            "head_size": kv.values if kv.heads == 0 else kv.values // 2,
            "mla": kv.heads == 0,
            "sliding": kv.sliding_layers,
            # vLLM's own class adds one token
            "window": expected["window"] if not kv.sliding_layers else kv.window - ("-r7b" in name),
        }
        assert found == expected, name


def test_the_cache_is_counted_as_vllm_allocates_it(tmp_path: Path) -> None:
    cases = []
    for name, config in CONFIGS.items():
        kv = kv_of(tmp_path / name, config)
        for max_model_len in (100, 2668, 40_000):
            for tp in (1, 2, 16):
                cases.append((name, kv, engine_of(tp, max_model_len=max_model_len)))
    asked = [
        {
            "heads": max(1, kv.heads // engine.tensor_parallel_size) if kv.heads else 0,
            "values": kv.values,
            "layers": kv.layers,
            "sliding": kv.sliding_layers,
            "window": kv.window,
            "dtype": "bfloat16",
            "max_model_len": engine.max_model_len,
            "max_num_batched_tokens": engine.max_num_batched_tokens,
        }
        for _, kv, engine in cases
    ]
    for (name, kv, engine), num_bytes in zip(cases, of_vllm(OF_VLLM, asked), strict=True):
        assert sequence_bytes(kv, engine) == num_bytes, (name, engine)
