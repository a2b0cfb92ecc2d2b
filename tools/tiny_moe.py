"""A tiny gpt-oss with random weights, and what runs it on a CPU: python -m tools.tiny_moe FOLDER

Writes into FOLDER a model of gpt-oss' architecture (bfloat16; --mxfp4 names the original's
quantization, which needs a CPU with AMX), two small data sets, and a benchmark and a site. The
benchmark is gpt-oss-120b with other sizes: its sampling settings are the official ones.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import yaml

from sut.inputs import tokenized
from sut.plan import config
from sut.plan.document import read
from sut.rundir import write_atomic

OFFICIAL = "gpt-oss-120b"
NAME = "tiny-gpt-oss"
SEED = 2026
VOCABULARY = 288  # 256 bytes, then special tokens
EOS = 256  # drawn once in VOCABULARY tokens: lengths vary
MXFP4_BLOCK = 32  # weights to a scale
PROMPT = (8, 48)  # tokens
SAMPLES = {"performance": 200, "accuracy": 40}
MAX_TOKENS = {"performance": 48, "accuracy": 96}
LIMITS = {"target_latency_ms": 0, "ttft_latency_ms": 3000, "tpot_latency_ms": 1000}
TOKENS = {"use_token_latencies": True}
SCENARIOS = {
    "server": {"target_qps": 5, "min_query_count": 470, **LIMITS, **TOKENS},
    "offline": {"target_qps": 20, "min_query_count": SAMPLES["performance"], **TOKENS},
}
CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_local_experts": 8,
    "num_experts_per_tok": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "sliding_window": 32,
    "initializer_range": 0.2,  # not so small that all tokens are equally likely
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": EOS,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.tiny_moe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--mxfp4", action="store_true")
    options = parser.parse_args()
    folder = options.folder.resolve()
    make(folder, mxfp4=options.mxfp4)
    print(
        f"python -m sut.submit --config {folder}/benchmark.yaml --site {folder}/site.yaml "
        "--scenario offline"
    )


def make(folder: Path, *, mxfp4: bool = False) -> None:
    make_model(folder / "model", mxfp4=mxfp4)
    for test, num in SAMPLES.items():
        source = random.Random(f"{SEED} {test}")
        samples = [
            tokenized.Sample([source.randrange(256) for _ in range(source.randint(*PROMPT))])
            for _ in range(num)
        ]
        write_atomic(folder / f"{test}.jsonl", tokenized.encode("random tokens", "", samples))
    document = benchmark(read(config.shipped("benchmarks", OFFICIAL)))
    for name, content in (("benchmark", document), ("site", site(folder))):
        write_atomic(folder / f"{name}.yaml", yaml.safe_dump(content, sort_keys=False, width=100))


def make_model(folder: Path, *, mxfp4: bool = False) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(SEED)
    made = GptOssForCausalLM(GptOssConfig(**CONFIG)).to(torch.bfloat16)
    made.save_pretrained(folder)
    if mxfp4:
        _quantize(folder)
    bytes_ = {word: i for i, word in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=bytes_, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # The reasoning parser, which vLLM loads with this architecture, looks for some of them.
    special = ["<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"]
    special += [f"<|reserved_{i}|>" for i in range(VOCABULARY - 256 - len(special))]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0]}
    write_atomic(folder / "tokenizer_config.json", json.dumps(settings))


def _quantize(folder: Path) -> None:
    """Replace the experts' weights by random ones in MXFP4, as the original has them."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        num, inputs, outputs = tensors.pop(name).shape
        shape = (num, outputs, inputs // MXFP4_BLOCK)
        blocks = torch.randint(0, 256, (*shape, MXFP4_BLOCK // 2), dtype=torch.uint8)
        tensors |= {
            f"{name}_blocks": blocks,
            f"{name}_scales": torch.full(shape, 122, dtype=torch.uint8),  # 2**(122 - 127)
        }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    kept = ["self_attn", "mlp.router", "embed_tokens", "lm_head"]
    quantized = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    document = json.loads(path.read_text()) | {"quantization_config": quantized}
    write_atomic(path, json.dumps(document, indent=1))


def benchmark(official: dict[str, Any]) -> dict[str, Any]:
    """The official benchmark's document with the sizes of this model and its data."""
    accuracy = official["accuracy_test"]

    def of(test: str) -> dict[str, Any]:
        return {"name": f"{NAME}-{test}", "kind": "tokenized", "num_samples": SAMPLES[test]}

    def smaller(generation: dict[str, Any], test: str) -> dict[str, Any]:
        # Random weights may end an answer at its first token, which LoadGen counts as an error.
        return generation | {"min_tokens": 2, "max_tokens": MAX_TOKENS[test]}

    return official | {
        "name": NAME,
        "description": "gpt-oss' architecture and sampling with random weights, for a CPU. Not an "
        "MLPerf benchmark.",
        "official": False,
        "required": [],
        "model": {"name": NAME, "loadgen_name": NAME},
        "dataset": of("performance"),
        "generation": smaller(official["generation"], "performance"),
        "engine": {
            "kind": "vllm",
            "max_model_len": 256,
            "max_num_seqs": 32,
            "max_num_batched_tokens": 512,
            "dtype": "float32",
            "enforce_eager": True,
        },
        "scenarios": SCENARIOS,
        "presets": {"smoke": {name: {"min_duration_ms": 100} for name in SCENARIOS}},
        "accuracy_test": {
            "dataset": of("accuracy"),
            "generation": smaller(accuracy["generation"], "accuracy"),
        },
        "compliance": {"output_tokens": {"low": 2, "high": MAX_TOKENS["performance"]}},
    }


def site(folder: Path) -> dict[str, Any]:
    return {
        "name": NAME,
        "device": "cpu",
        "run_root": str(folder / "runs"),
        "models": {NAME: str(folder / "model")},
        "datasets": {f"{NAME}-{test}": str(folder / f"{test}.jsonl") for test in SAMPLES},
        "cpu": {"kv_cache_gib": 1},
    }


if __name__ == "__main__":
    main()
