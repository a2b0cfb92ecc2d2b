"""LoadGen's wheel with a typical Python SUT. Usage: python -m benchmarks.wheel LOAD_JSON LOG_DIR

A queue and a thread behind IssueQuery, and an asyncio front-end like AsyncLLM: a coroutine and a
queue for each request, and one task that reads the engine's outputs and distributes them.
"""

from __future__ import annotations

import array
import asyncio
import queue
import threading
import time
from typing import Any

import mlperf_loadgen as lg
import msgspec
import zmq
import zmq.asyncio

from benchmarks.load import MODEL, NUM_SAMPLES, PROMPT, Load, arguments, request, start_engine


class FrontEnd:
    """The engine's end of the protocol, for one engine."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._context = zmq.asyncio.Context()
        self._outputs: dict[str, asyncio.Queue[Any]] = {}
        self._request = request(PROMPT, load.num_tokens)
        self._id_at = self._request.index(b"0" * 16)

    async def start(self) -> None:
        handshake = self._context.socket(zmq.ROUTER)
        self._input = self._context.socket(zmq.ROUTER)
        self._output = self._context.socket(zmq.PULL)
        for socket in (handshake, self._input, self._output):
            socket.set_hwm(0)
        port = handshake.bind_to_random_port("tcp://127.0.0.1")
        input_port = self._input.bind_to_random_port("tcp://127.0.0.1")
        output_port = self._output.bind_to_random_port("tcp://127.0.0.1")
        self.engine = start_engine(self._load, "127.0.0.1", port)
        identity, _ = await handshake.recv_multipart()
        addresses = {
            "inputs": [f"tcp://127.0.0.1:{input_port}"],
            "outputs": [f"tcp://127.0.0.1:{output_port}"],
        }
        reply = msgspec.msgpack.encode({"addresses": addresses, "parallel_config": {}})
        await handshake.send_multipart([identity, reply])
        self._identity, _ = await self._input.recv_multipart()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        decode = msgspec.msgpack.Decoder().decode
        while True:
            for output in decode(await self._output.recv())[1]:
                self._outputs[output[0]].put_nowait(output)

    async def generate(self, request_id: str) -> Any:
        """The token ids of each delta."""
        outputs = self._outputs[request_id] = asyncio.Queue()
        message = bytearray(self._request)
        message[self._id_at : self._id_at + 16] = request_id.encode()
        await self._input.send_multipart([self._identity, b"\0", bytes(message)])
        while True:
            output = await outputs.get()
            yield output[1]
            if len(output) > 5 and output[5] is not None:
                break
        del self._outputs[request_id]


class Sut:
    """IssueQuery puts samples into a queue; a thread runs them on an event loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._queries: queue.Queue[Any] = queue.Queue()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_until_complete, args=[self._main()]).start()
        self._ready.wait()

    def issue(self, samples: Any) -> None:
        self._queries.put([(sample.id, sample.index) for sample in samples])

    def flush(self) -> None:
        pass

    def stop(self) -> None:
        self._queries.put(None)

    async def _main(self) -> None:
        self._front_end = FrontEnd(self._load)
        await self._front_end.start()
        self._ready.set()
        running: set[asyncio.Task[None]] = set()
        while (batch := await asyncio.to_thread(self._queries.get)) is not None:
            for sample_id, _ in batch:
                task = asyncio.create_task(self._answer(sample_id))
                running.add(task)
                task.add_done_callback(running.discard)
        self._front_end.engine.kill()

    async def _answer(self, sample_id: int) -> None:
        tokens = array.array("i")
        async for delta in self._front_end.generate(f"{sample_id & (2**64 - 1):016x}"):
            tokens.extend(delta)
            if len(tokens) == len(delta) and self._load.scenario == "Server":
                self._complete(lg.FirstTokenComplete, sample_id, tokens[:1])
        self._complete(lg.QuerySamplesComplete, sample_id, tokens)

    def _complete(self, call: Any, sample_id: int, tokens: array.array[int]) -> None:
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
    system = Sut(load)
    sut = lg.ConstructSUT(system.issue, system.flush)
    qsl = lg.ConstructQSL(NUM_SAMPLES, NUM_SAMPLES, lambda _: None, lambda _: None)
    before = time.process_time()
    lg.StartTestWithLogSettings(sut, qsl, settings, log)
    print(msgspec.json.encode({"cpu_s": time.process_time() - before}).decode(), flush=True)
    system.stop()


if __name__ == "__main__":
    main()
