"""A replay engine as the engine core of vLLM's own front-ends, which take an external one."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from pathlib import Path

import msgspec
import zmq

from benchmarks.load import Load, start_engine

Addresses = dict[str, str]


class ExternalCore:
    """A context: a replay engine whose front-end binds ``addresses``. The handshake, which vLLM
    does when it starts engines itself, runs on a thread."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self.addresses: Addresses = {
            "input_address": f"ipc://{folder / 'input'}",
            "output_address": f"ipc://{folder / 'output'}",
        }

    def __enter__(self) -> ExternalCore:
        self._handshake: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        port: int = self._handshake.bind_to_random_port("tcp://127.0.0.1")
        self.engine: subprocess.Popen[bytes] = start_engine(self._load, "127.0.0.1", port)
        threading.Thread(target=self._reply, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.kill()
        self.engine.wait()
        self._folder.cleanup()

    def _reply(self) -> None:
        identity, _ = self._handshake.recv_multipart()
        addresses = {
            "inputs": [self.addresses["input_address"]],
            "outputs": [self.addresses["output_address"]],
        }
        reply = msgspec.msgpack.encode({"addresses": addresses, "parallel_config": {}})
        self._handshake.send_multipart([identity, reply])
