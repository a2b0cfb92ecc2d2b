"""LoadGen's wheel with vLLM's AsyncLLM, whose external engine core is a replay engine.

Usage: python -m benchmarks.wheel LOAD_JSON LOG_DIR. Prints JSON: the CPU time of the test.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from benchmarks.async_sut import Sut, run_test
from benchmarks.core import Addresses, ExternalCore
from benchmarks.load import MODEL, NUM_SAMPLES, PROMPT, Load, arguments
from sut.inputs import model
from sut.plan import config


def async_llm(load: Load, core: Addresses) -> Any:
    """Create it on a running event loop. A replay engine answers no utility calls, so the one that
    asks for an engine's tasks is not made."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    class WithoutUtilityCalls(AsyncLLM):  # type: ignore[misc]
        async def get_supported_tasks(self) -> tuple[str, ...]:
            return ("generate",)

    benchmark, _ = config.load("smollm2-135m-news", "local", ())
    engine = AsyncEngineArgs(
        model=str(model.locate(benchmark.model)),
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=load.num_seqs,
        enable_prefix_caching=False,
        disable_log_stats=True,
        skip_tokenizer_init=True,
    )
    return WithoutUtilityCalls.from_vllm_config(
        engine.create_engine_config(), disable_log_stats=True, client_addresses=core
    )


class AsyncLlm:
    def __init__(self, load: Load, core: Addresses) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._llm = async_llm(load, core)
        self._parameters = SamplingParams(
            temperature=0.0,
            min_tokens=load.num_tokens,
            max_tokens=load.num_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    async def start(self) -> None:
        async for _ in self.stream(0, "warm-up"):
            pass

    async def stream(self, index: int, request_id: str) -> AsyncIterator[Sequence[int]]:
        prompt = {"prompt_token_ids": PROMPT}
        async for output in self._llm.generate(prompt, self._parameters, request_id):
            yield output.outputs[0].token_ids


def main() -> None:
    load, log_dir = arguments()
    with ExternalCore(load) as core:
        served = Sut(lambda: AsyncLlm(load, core.addresses), load.scenario)
        before = time.process_time()
        run_test(served, MODEL, load.scenario, log_dir, NUM_SAMPLES)
        print(msgspec.json.encode({"cpu_s": time.process_time() - before}).decode(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
