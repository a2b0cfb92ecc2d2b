"""Engine arguments that vLLM or the plan would refuse, found before anything is queued."""

from __future__ import annotations

import pytest

from sut.errors import Errors
from sut.plan import engine_args


def found(*extra_args: str) -> str:
    errors = Errors()
    engine_args.check(extra_args, errors)
    return "\n".join(map(str, errors))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("--max-num-seqs", "8"), "engine.max_num_seqs"),
        (("--max-num-seqs=8",), "engine.max_num_seqs"),
        (("--max_num_seqs=8",), "engine.max_num_seqs"),
        (("--max-num-s", "8"), "engine.max_num_seqs"),
        (("--max-num-batched-tokens=1",), "engine.max_num_batched_tokens"),
        (("-tp", "2"), "engine.tensor_parallel_size"),
        (("--pipeline-parallel-size=2",), "engine.pipeline_parallel_size"),
        (("--dtype=float16",), "engine.dtype"),
        (("--no-enforce-eager",), "engine.enforce_eager"),
        (("--quantization", "fp8", "--max-model-len", "64"), "engine.max_model_len"),
    ],
)
def test_refuses_an_option_that_has_a_key(arguments: tuple[str, ...], key: str) -> None:
    text = found(*arguments)
    assert f"contradicts {key}: " in text and f"--set {key}=VALUE" in text
    assert text.count("hint:") == 1


@pytest.mark.parametrize("word", ["--headless", "--data-parallel-size=2", "--nnodes", "-dp"])
def test_refuses_an_option_that_the_nodes_set(word: str) -> None:
    assert f"{word} depends on the run's nodes" in found(word)


def test_other_options_are_passed_on() -> None:
    given = ("--quantization", "fp8", "--gpu-memory-utilization=0.8", "-cc.mode=2", "-O3")
    assert found(*given, "--disable-custom-all-reduce", "--model-impl=auto") == ""
