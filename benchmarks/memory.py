"""Bytes per sample in flight. Usage: python -m benchmarks.memory NUM_TOKENS

An engine that takes every request and answers none; the growth of our own resident set, over the
samples that it holds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from benchmarks.load import PROMPT, Load, request, start_engine
from sut import _core, wire

NUM_IN_FLIGHT = 50_000


def main() -> None:
    load = Load(scenario="Offline", qps=1, duration_s=1, num_tokens=int(sys.argv[1]))
    links = _core.ReplicaLinks(host="127.0.0.1", num_replicas=1)
    engine = start_engine(load, *links.handshake_address(0))
    store = _core.SampleStore()
    encoded = request(PROMPT, load.num_tokens)
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
    dispatcher.set_credit(0, NUM_IN_FLIGHT)
    dispatcher.generate([0] * 100, 0, 60.0)
    os.kill(engine.pid, 19)  # SIGSTOP: it holds what it gets
    before = resident_bytes()
    samples = [0] * NUM_IN_FLIGHT
    threading.Thread(target=lambda: dispatcher.generate(samples, 0, 600.0), daemon=True).start()
    while dispatcher.stats().replicas[0].in_flight < NUM_IN_FLIGHT:
        time.sleep(0.05)
    # What generate() itself holds: an index and a sample's record each, and a vector for answers.
    own = NUM_IN_FLIGHT * (8 + 16 + 24)
    print((resident_bytes() - before - own) / NUM_IN_FLIGHT, len(encoded), flush=True)
    engine.kill()
    os._exit(0)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
