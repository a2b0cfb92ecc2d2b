"""The usual harness: LoadGen's wheel, a queue and a thread behind IssueQuery, and a client on the
thread's event loop."""

from __future__ import annotations

import array
import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import mlperf_loadgen as lg


class Client(Protocol):
    """A served model."""

    async def start(self) -> None:
        """Wait until it answers, and warm it up."""

    def stream(self, index: int, request_id: str) -> AsyncIterator[Sequence[int]]:
        """The answer to sample ``index``: token ids as they arrive."""


class Sut:
    """IssueQuery puts samples into a queue; a thread runs them. ``make`` is called on the event
    loop."""

    def __init__(self, make: Callable[[], Client], scenario: str) -> None:
        self._make, self._scenario = make, scenario
        self._queries: queue.Queue[list[tuple[int, int]]] = queue.Queue()
        self._ready = threading.Event()
        threading.Thread(target=asyncio.run, args=[self._main()], daemon=True).start()
        self._ready.wait()

    def issue(self, samples: Any) -> None:
        self._queries.put([(sample.id, sample.index) for sample in samples])

    async def _main(self) -> None:
        self._client = self._make()
        await self._client.start()
        self._ready.set()
        running: set[asyncio.Task[None]] = set()
        while True:
            for sample_id, index in await asyncio.to_thread(self._queries.get):
                task = asyncio.create_task(self._answer(sample_id, index))
                running.add(task)
                task.add_done_callback(running.discard)

    async def _answer(self, sample_id: int, index: int) -> None:
        tokens = array.array("i")
        async for new in self._client.stream(index, f"{sample_id & (2**64 - 1):016x}"):
            first = not tokens
            tokens.extend(new)
            if first and tokens and self._scenario == "Server":
                complete(lg.FirstTokenComplete, sample_id, tokens[:1])
        complete(lg.QuerySamplesComplete, sample_id, tokens)


def complete(call: Any, sample_id: int, tokens: array.array[int]) -> None:
    address, length = tokens.buffer_info()
    call([lg.QuerySampleResponse(sample_id, address, length * tokens.itemsize, length)])


def run_test(served: Sut, model: str, scenario: str, log_dir: Path, num_samples: int) -> None:
    """LoadGen's performance test with the settings in ``log_dir/user.conf``."""
    settings = lg.TestSettings()
    settings.FromConfig("", model, scenario, 0)
    settings.FromConfig(str(log_dir / "user.conf"), model, scenario, 2)
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    output, log = lg.LogOutputSettings(), lg.LogSettings()
    output.outdir = str(log_dir)
    log.log_output, log.enable_trace = output, False
    sut = lg.ConstructSUT(served.issue, lambda: None)
    qsl = lg.ConstructQSL(num_samples, num_samples, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(sut, qsl, settings, log)
