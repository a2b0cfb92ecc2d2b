"""``engine.extra_args``: options of vLLM that the keys of a plan must not contradict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sut.errors import Errors

# What a run passes to vLLM itself, and the key that sets it.
KEYS = {
    "--dtype": "engine.dtype",
    "--max-model-len": "engine.max_model_len",
    "--max-num-seqs": "engine.max_num_seqs",
    "--max-num-batched-tokens": "engine.max_num_batched_tokens",
    "--tensor-parallel-size": "engine.tensor_parallel_size",
    "-tp": "engine.tensor_parallel_size",
    "--pipeline-parallel-size": "engine.pipeline_parallel_size",
    "-pp": "engine.pipeline_parallel_size",
    "--enforce-eager": "engine.enforce_eager",
    "--no-enforce-eager": "engine.enforce_eager",
    "--model": "model.name",
}
# What depends on the run's nodes and ports.
_OURS = (
    "--headless",
    *("--data-parallel-address", "-dpa", "--data-parallel-rpc-port", "-dpp"),
    *("--data-parallel-size", "-dp", "--data-parallel-rank", "-dpn"),
    *("--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port"),
)
_SHORTEST = len("--xxxx")  # of an abbreviation


def check(extra_args: Sequence[str], errors: Errors) -> None:
    """Add to ``errors`` each option in ``extra_args`` that the plan sets."""
    for word, option in _options(extra_args):
        if option in KEYS:
            errors.add(
                f"engine.extra_args contradicts {KEYS[option]}: {word}",
                hint=f"leave it out and set the key: --set {KEYS[option]}=VALUE",
            )
        else:
            errors.add(
                f"engine.extra_args: {word} depends on the run's nodes, which set it",
                hint="leave it out; one engine is a replica: --set site.num_replicas=N",
            )


def _options(extra_args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The words that are options of a run, with the option in full."""
    for word in extra_args:
        name = word.partition("=")[0]
        if not name.startswith("-"):
            continue
        # vLLM accepts abbreviated options, and underscores in place of dashes.
        name = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
        for option in (*KEYS, *_OURS):
            if name == option or (len(name) >= _SHORTEST and option.startswith(name)):
                yield word, option
                break
