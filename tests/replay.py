"""Replay engines with a dispatcher and without a plan, for tests of the C++ core."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

import sut
from sut import _core
from sut.serving import keys, wire
from sut.serving.keys import KeyFile, RunKeys

BINARY = Path(sut.__file__).parent / "replay_engine"
MAX_TOKENS = 8


def request_of(prompt: Sequence[int]) -> bytes:
    """An EngineCoreRequest with the placeholder id, as msgpack."""
    params = {"min_tokens": MAX_TOKENS, "max_tokens": MAX_TOKENS}
    fields = ["0" * 16, list(prompt), None, params, None, 0.0, None, None, None]
    return msgspec.msgpack.encode(fields)


def links_with(run_keys: RunKeys, **changes: Any) -> _core.ReplicaLinks:
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "secret_key": run_keys.secret,
        "engine_keys": [engine.public for engine in run_keys.engines],
        "max_output_bytes": 2**20,
    }
    return _core.ReplicaLinks(**(given | changes))


@contextmanager
def served(num_samples: int, num_replicas: int = 1, *options: str) -> Iterator[_core.Dispatcher]:
    """A dispatcher with ready replicas and the prompts ``[i, i + 1, i + 2]``."""
    with serving(num_samples, num_replicas, *options) as (dispatcher, _):
        yield dispatcher


@contextmanager
def serving(
    num_samples: int, num_replicas: int, *options: str, first_use: int = 1
) -> Iterator[tuple[_core.Dispatcher, Sequence[subprocess.Popen[bytes]]]]:
    """The same with the engines' processes, by replica."""
    store = _core.SampleStore()
    for i in range(num_samples):
        store.add(request_of([i, i + 1, i + 2]), 2, 3)
    run_keys = keys.make(num_replicas)
    links = links_with(run_keys)
    dispatcher = _core.Dispatcher(
        links,
        store,
        _core.WireLayout(**wire.PINNED_LAYOUT),
        max_output_tokens=MAX_TOKENS,
        sample_deadline_s=60.0,
        stall_deadline_s=30.0,
        first_use=first_use,
    )
    engines: list[subprocess.Popen[bytes]] = []
    key_files = [KeyFile(engine) for engine in run_keys.engines]
    try:
        for index in range(num_replicas):
            host, port = links.handshake_address(index)
            argv = [str(BINARY), "--handshake", f"tcp://{host}:{port}", "--seed", "1"]
            argv += ["--max-num-seqs", "64", "--max-model-len", "1024"]
            argv += ["--max-num-batched-tokens", "8192", "--prefill-tokens-per-s", "0"]
            argv += ["--step-base-us", "0", "--step-per-sequence-us", "0", *options]
            environment = {**os.environ, keys.VARIABLE: key_files[index].path}
            engines.append(subprocess.Popen(argv, env=environment))
        assert dispatcher.wait_ready(30.0), dispatcher.failure
        for index in range(num_replicas):
            dispatcher.set_credit(index, 128)
        yield dispatcher, engines
    finally:
        dispatcher.close()
        for engine in engines:
            engine.kill()
            engine.wait()
        for key_file in key_files:
            key_file.close()
