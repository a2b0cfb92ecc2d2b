"""A model with padded heads computes the same function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pad_heads import pad

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama of random weights with SmolLM2's 9 heads and 3 KV heads, in two shards."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=72,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=9,
        num_key_value_heads=3,
        attention_bias=True,
    )
    folder = tmp_path_factory.mktemp("model")
    built = LlamaForCausalLM(config)
    for parameter in built.parameters():  # some are initially zero
        torch.nn.init.normal_(parameter, std=0.2)
    built.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def test_padded_heads_change_no_logit(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    pad(model, tmp_path / "padded", 12, 4)
    config = json.loads((tmp_path / "padded" / "config.json").read_bytes())
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (12, 4)
    assert config["head_dim"] == 8
    ids = torch.randint(0, 64, (2, 40))
    logits = []
    for folder in (model, tmp_path / "padded"):
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            logits.append(loaded(ids).logits)
    assert logits[0].std() > 0.1
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(logits[0].argmax(-1), logits[1].argmax(-1))


@pytest.mark.parametrize(("heads", "kv_heads"), [(12, 3), (6, 2), (10, 4)])
def test_refuses_heads_that_would_change_the_model(
    model: Path, tmp_path: Path, heads: int, kv_heads: int
) -> None:
    with pytest.raises(ValueError, match="9 heads and 3 KV heads"):
        pad(model, tmp_path / "padded", heads, kv_heads)
    assert not (tmp_path / "padded").exists()
