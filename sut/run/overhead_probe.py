"""Measures LoadGen and a dispatcher with one replay engine: ``python -m sut.run.overhead_probe
PROBE``, with a :class:`Probe` as JSON; prints an :class:`sut.results.overhead.Overhead`.

It is a process of its own, so that its CPU time is that of the harness, and LoadGen's logger, which
a failed test never releases, is not the run's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sut import _core
from sut.errors import RunError
from sut.results import mllog
from sut.results.measures import TPOT_KEY, TTFT_KEY, percentile_key
from sut.results.mllog import DetailLog
from sut.results.overhead import Ceiling, Overhead, Paced, Tail
from sut.serving import keys, wire
from sut.serving.process import REPLAY_ENGINE, Command, EngineProcess
from sut.values import Struct

MODEL = "overhead"  # LoadGen's key in the texts below
NUM_SAMPLES = 256
MIN_QPS = 700.0  # so that the paced test has the thousand queries of a p99.9
PACED_S = 1.5
PACED_TOKENS = 16
CEILING_TOKENS = 128
CEILING_EVENTS = 600_000  # about 0.3 s on one core
READY_S = 10.0
TEST_S = 20.0


class Probe(Struct, frozen=True, kw_only=True):
    """The run's sizes: mean length of its prompts, longest answer, batch; its load, if any."""

    prompt_tokens: int
    max_tokens: int
    max_num_seqs: int
    planned_qps: float | None
    engine: str = str(REPLAY_ENGINE)


def main() -> None:
    probe = msgspec.json.decode(sys.argv[1], type=Probe)
    try:
        result = measure(probe)
    except RunError as error:
        print(str(error).partition("\n")[0], file=sys.stderr, flush=True)
        os._exit(1)
    print(msgspec.json.encode(result).decode(), flush=True)
    os._exit(0)


def measure(probe: Probe) -> Overhead:
    """Raises RunError."""
    return Overhead(ceiling=_ceiling(probe), paced=_paced(probe))


def _ceiling(probe: Probe) -> Ceiling:
    num_tokens = min(probe.max_tokens, CEILING_TOKENS)
    num_samples = max(NUM_SAMPLES, CEILING_EVENTS // num_tokens)
    settings = {"target_qps": num_samples, "min_duration": 1000}
    log, cpu_s = _test(probe, "Offline", num_tokens, settings)
    events = log.count("generated_samples_per_query") * num_tokens
    rate = log.number("result_tokens_per_second")
    assert rate is not None
    return Ceiling(
        num_tokens=num_tokens, token_events_per_s=rate, cpu_us_per_token=1e6 * cpu_s / events
    )


def _paced(probe: Probe) -> Paced:
    num_tokens = min(probe.max_tokens, PACED_TOKENS)
    qps = max(MIN_QPS, probe.planned_qps or 0.0)
    settings = {"target_qps": qps, "min_duration": round(1000 * PACED_S)}
    log, cpu_s = _test(probe, "Server", num_tokens, settings)
    num_queries = log.count("result_query_count")
    return Paced(
        planned_qps=probe.planned_qps,
        qps=qps,
        num_queries=num_queries,
        num_tokens=num_tokens,
        ttft_us=_tail(log, TTFT_KEY),
        tpot_us=_tail(log, TPOT_KEY),
        cpu_us_per_token=1e6 * cpu_s / (num_queries * num_tokens),
    )


def _tail(log: DetailLog, template: str) -> Tail:
    p50, p99, p999 = (
        (log.number(percentile_key(template, p)) or 0.0) / 1e3 for p in (0.50, 0.99, 0.999)
    )
    return Tail(p50=p50, p99=p99, p999=p999)


def _test(
    probe: Probe, scenario: str, num_tokens: int, settings: Mapping[str, float]
) -> tuple[DetailLog, float]:
    """LoadGen's log of a test, and this process's CPU time in it, in seconds."""
    with _served(probe, num_tokens) as dispatcher, tempfile.TemporaryDirectory() as log_dir:
        dispatcher.generate(list(range(100)), 0, READY_S)
        test = _core.LoadGenTest(
            dispatcher,
            model=MODEL,
            scenario=scenario,
            mode="performance",
            user_conf=_user_conf(scenario, settings),
            audit_conf="",
            log_dir=log_dir,
            sut_name="replay",
            qsl_name="numbers",
        )
        before = time.process_time()
        test.start()
        if not test.wait(TEST_S) or not test.finished:
            failure = dispatcher.failure
            reason = f"{failure.code}: {failure.message}" if failure else f"after {TEST_S:g} s"
            raise RunError(f"LoadGen's test did not finish ({reason})", code="overhead")
        cpu_s = time.process_time() - before
        return mllog.read(Path(log_dir)), cpu_s


def _user_conf(scenario: str, settings: Mapping[str, float]) -> str:
    fixed = {
        "min_query_count": 1,
        "performance_sample_count_override": NUM_SAMPLES,
        "use_token_latencies": 1,
        "target_latency": 0,
        "ttft_latency": 1_000_000,
        "tpot_latency": 1_000_000,
    }
    values = {**fixed, **settings}
    return "".join(f"{MODEL}.{scenario}.{key} = {value}\n" for key, value in values.items())


@contextmanager
def _served(probe: Probe, num_tokens: int) -> Iterator[_core.Dispatcher]:
    """A dispatcher with its own keys and one ready engine whose steps and prefill take no time."""
    run_keys = keys.make(1)
    links = _core.ReplicaLinks(
        host="127.0.0.1",
        secret_key=run_keys.secret,
        engine_keys=[run_keys.engines[0].public],
        max_output_bytes=wire.FRAME_BYTES + probe.max_num_seqs * wire.OUTPUT_BYTES,
    )
    host, port = links.handshake_address(0)
    argv = [probe.engine, "--handshake", f"tcp://{host}:{port}", "--seed", "1"]
    argv += ["--max-num-seqs", str(probe.max_num_seqs)]
    argv += ["--max-model-len", str(probe.prompt_tokens + num_tokens + 1)]
    argv += ["--max-num-batched-tokens", "65536", "--prefill-tokens-per-s", "0"]
    argv += ["--step-base-us", "0", "--step-per-sequence-us", "0"]
    command = Command(argv=tuple(argv), env=dict(os.environ))
    engine = EngineProcess(command, subprocess.DEVNULL, 0, run_keys.engines[0])
    try:
        dispatcher = _dispatcher(probe, num_tokens, links)
        if not dispatcher.wait_ready(READY_S):
            exited = "" if engine.poll() is None else f": it exited with {engine.poll()}"
            raise RunError(f"the replay engine was not ready{exited}", code="overhead")
        dispatcher.set_credit(0, probe.max_num_seqs + max(1, probe.max_num_seqs // 4))
        yield dispatcher
        dispatcher.close()
    finally:
        engine.terminate()
        engine.stop(time.monotonic() + 1.0)


def _dispatcher(probe: Probe, num_tokens: int, links: _core.ReplicaLinks) -> _core.Dispatcher:
    request = _request(probe.prompt_tokens, num_tokens)
    store = _core.SampleStore()
    for _ in range(NUM_SAMPLES):
        store.add(request, request.index(wire.PLACEHOLDER) + 1, probe.prompt_tokens)
    return _core.Dispatcher(
        links,
        store,
        _core.WireLayout(**wire.PINNED_LAYOUT),
        max_output_tokens=num_tokens,
        sample_deadline_s=TEST_S,
        stall_deadline_s=TEST_S,
    )


def _request(prompt_tokens: int, num_tokens: int) -> bytes:
    """An EngineCoreRequest with the placeholder id, as msgpack."""
    params = {"min_tokens": num_tokens, "max_tokens": num_tokens}
    prompt = [100 + n % 1000 for n in range(prompt_tokens)]
    fields = [wire.PLACEHOLDER_ID, prompt, None, params, None, 0.0, None, None, None]
    return msgspec.msgpack.encode(fields)


if __name__ == "__main__":
    main()
