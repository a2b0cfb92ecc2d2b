"""Our dispatcher with a replay engine, from Python."""

from __future__ import annotations

import subprocess

from benchmarks.load import NUM_SAMPLES, PROMPT, Load, request, start_engine
from sut import _core
from sut.serving import keys, wire
from sut.serving.keys import KeyFile


def serve(load: Load) -> tuple[_core.Dispatcher, subprocess.Popen[bytes]]:
    """A dispatcher with a ready replay engine that has no credit yet."""
    run_keys = keys.make(1)
    links = _core.ReplicaLinks(
        host="127.0.0.1",
        secret_key=run_keys.secret,
        engine_keys=[run_keys.engines[0].public],
        max_output_bytes=2**20,
    )
    key_file = KeyFile(run_keys.engines[0])
    engine = start_engine(load, *links.handshake_address(0), {keys.VARIABLE: key_file.path})
    store = _core.SampleStore()
    encoded = request(PROMPT, load.num_tokens)
    for _ in range(NUM_SAMPLES):
        store.add(encoded, encoded.index(wire.PLACEHOLDER) + 1, len(PROMPT))
    dispatcher = _core.Dispatcher(
        links,
        store,
        _core.WireLayout(**wire.PINNED_LAYOUT),
        max_output_tokens=load.num_tokens,
        sample_deadline_s=600.0,
        stall_deadline_s=600.0,
    )
    assert dispatcher.wait_ready(60.0)
    return dispatcher, engine
