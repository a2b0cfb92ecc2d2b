"""LoadGen's wheel with vLLM's AsyncLLM, whose external engine core is a replay engine.

Usage: python -m benchmarks.wheel LOAD_JSON LOG_DIR. Prints JSON: the CPU time of the test.

A queue and a thread behind IssueQuery, and AsyncLLM on the thread's event loop.
"""

from __future__ import annotations

import array
import asyncio
import os
import queue
import threading
import time
from typing import Any

import mlperf_loadgen as lg
import msgspec

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


class Sut:
    """IssueQuery puts samples into a queue; a thread runs them on the event loop of AsyncLLM."""

    def __init__(self, load: Load, core: Addresses) -> None:
        self._load, self._core = load, core
        self._queries: queue.Queue[list[int]] = queue.Queue()
        self._ready = threading.Event()
        threading.Thread(target=asyncio.run, args=[self._main()], daemon=True).start()
        self._ready.wait()

    def issue(self, samples: Any) -> None:
        self._queries.put([sample.id for sample in samples])

    async def _main(self) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._llm = async_llm(self._load, self._core)
        self._parameters = SamplingParams(
            temperature=0.0,
            min_tokens=self._load.num_tokens,
            max_tokens=self._load.num_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        async for _ in self._generate("warm-up"):
            pass
        self._ready.set()
        running: set[asyncio.Task[None]] = set()
        while True:
            for sample_id in await asyncio.to_thread(self._queries.get):
                task = asyncio.create_task(self._answer(sample_id))
                running.add(task)
                task.add_done_callback(running.discard)

    def _generate(self, request_id: str) -> Any:
        return self._llm.generate({"prompt_token_ids": PROMPT}, self._parameters, request_id)

    async def _answer(self, sample_id: int) -> None:
        tokens = array.array("i")
        async for output in self._generate(f"{sample_id & (2**64 - 1):016x}"):
            first = not tokens
            tokens.extend(output.outputs[0].token_ids)
            if first and self._load.scenario == "Server":
                complete(lg.FirstTokenComplete, sample_id, tokens[:1])
        complete(lg.QuerySamplesComplete, sample_id, tokens)


def complete(call: Any, sample_id: int, tokens: array.array[int]) -> None:
    address, length = tokens.buffer_info()
    call([lg.QuerySampleResponse(sample_id, address, length * tokens.itemsize, length)])


def main() -> None:
    load, log_dir = arguments()
    settings = lg.TestSettings()
    settings.FromConfig("", MODEL, load.scenario, 0)
    settings.FromConfig(str(log_dir / "user.conf"), MODEL, load.scenario, 2)
    settings.scenario = getattr(lg.TestScenario, load.scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    output, log = lg.LogOutputSettings(), lg.LogSettings()
    output.outdir = str(log_dir)
    log.log_output, log.enable_trace = output, False
    with ExternalCore(load) as core:
        served = Sut(load, core.addresses)
        sut = lg.ConstructSUT(served.issue, lambda: None)
        qsl = lg.ConstructQSL(NUM_SAMPLES, NUM_SAMPLES, lambda _: None, lambda _: None)
        before = time.process_time()
        lg.StartTestWithLogSettings(sut, qsl, settings, log)
        print(msgspec.json.encode({"cpu_s": time.process_time() - before}).decode(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
