"""Bytes per sample in flight. Usage: python -m benchmarks.memory NUM_TOKENS

The engine receives every request and answers none. The result is the growth of this process's
resident set per sample.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from benchmarks.load import PROMPT, Load, request
from benchmarks.ours import serve

NUM_IN_FLIGHT = 50_000


def main() -> None:
    load = Load(scenario="Offline", qps=1, duration_s=1, num_tokens=int(sys.argv[1]))
    dispatcher, engine = serve(load)
    num_request_bytes = len(request(PROMPT, load.num_tokens))
    dispatcher.set_credit(0, NUM_IN_FLIGHT)
    dispatcher.generate([0] * 100, 0, 60.0)
    os.kill(engine.pid, signal.SIGSTOP)  # so no request is answered
    before = resident_bytes()
    samples = [0] * NUM_IN_FLIGHT
    threading.Thread(target=lambda: dispatcher.generate(samples, 0, 600.0), daemon=True).start()
    while dispatcher.stats().replicas[0].in_flight < NUM_IN_FLIGHT:
        time.sleep(0.05)
    # generate() itself allocates an index, a Sample and an answer's vector for each sample.
    own = NUM_IN_FLIGHT * (8 + 16 + 24)
    print((resident_bytes() - before - own) / NUM_IN_FLIGHT, num_request_bytes, flush=True)
    engine.kill()
    os._exit(0)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
