"""Our dispatcher under one load. Usage: python -m benchmarks.ours LOAD_JSON LOG_DIR"""

from __future__ import annotations

import os
import subprocess
import time

import msgspec

from benchmarks.load import MODEL, NUM_SAMPLES, PROMPT, Load, arguments, request, start_engine
from sut import _core
from sut.serving import wire


def serve(load: Load) -> tuple[_core.Dispatcher, list[subprocess.Popen[bytes]]]:
    """A dispatcher with ready replay engines that have no credit yet."""
    links = _core.ReplicaLinks(host="127.0.0.1", num_replicas=load.num_replicas)
    engines = [start_engine(load, *links.handshake_address(i)) for i in range(load.num_replicas)]
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
    return dispatcher, engines


def main() -> None:
    load, log_dir = arguments()
    dispatcher, engines = serve(load)
    for i in range(load.num_replicas):
        dispatcher.set_credit(i, load.num_seqs + load.num_seqs // 4)
        dispatcher.generate(range(100), i, 60.0)
    test = _core.LoadGenTest(
        dispatcher,
        model=MODEL,
        scenario=load.scenario,
        mode="performance",
        user_conf=str(log_dir / "user.conf"),
        audit_conf="",
        log_dir=str(log_dir),
        sut_name="ours",
        qsl_name="numbers",
    )
    before = time.process_time()
    test.start()
    while not test.wait(3600.0):
        pass
    assert test.finished, dispatcher.failure and dispatcher.failure.message
    print(msgspec.json.encode({"cpu_s": time.process_time() - before}).decode(), flush=True)
    dispatcher.close()
    for engine in engines:
        engine.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
