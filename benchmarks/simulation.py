"""Simulated against measured: LoadGen's Server and Offline tests on replay engines in real time,
and the same tests in virtual time. Usage: python -m benchmarks.simulation [--seconds N]

Prints measured / simulated of each figure: 1 is exact.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from benchmarks.load import REPLAY_ENGINE, request
from sut import _core
from sut.report.markdown import table
from sut.run.credit import credit
from sut.serving import keys, wire
from sut.serving.keys import KeyFile

MODEL = "bench"
NUM_SAMPLES = 500
NUM_TOKENS = 32
MAX_MODEL_LEN = 1024
Columns = Mapping[str, memoryview]


class System(msgspec.Struct, frozen=True, kw_only=True):
    """Engines of one kind. Times in microseconds; ``step_factors`` as in ``_core.simulate``."""

    name: str
    num_replicas: int
    max_num_seqs: int
    max_num_batched_tokens: int
    base: float
    per_sequence: float
    per_prefill_token: float
    per_context_token: float = 0
    noise: float = 0
    pad_to: int = 1
    step_factors: tuple[float, ...] = ()

    def service(self) -> _core.ServiceModel:
        return _core.ServiceModel(
            base_us=self.base,
            per_sequence_us=self.per_sequence,
            per_prefill_token_us=self.per_prefill_token,
            per_context_token_us=self.per_context_token,
            noise=self.noise,
            pad_to=self.pad_to,
        )

    def engine_options(self, replica: int) -> list[str]:
        factor = self.step_factors[replica] if self.step_factors else 1
        options = {
            "max-num-seqs": self.max_num_seqs,
            "max-model-len": MAX_MODEL_LEN,
            "max-num-batched-tokens": self.max_num_batched_tokens,
            "prefill-tokens-per-s": 1e6 / (factor * self.per_prefill_token),
            "step-base-us": factor * self.base,
            "step-per-sequence-us": factor * self.per_sequence,
            "step-per-context-token-us": factor * self.per_context_token,
            "step-noise": self.noise,
            "pad-decodes-to": self.pad_to,
        }
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]


FAST = System(
    name="four fast engines",
    num_replicas=4,
    max_num_seqs=64,
    max_num_batched_tokens=1024,
    base=5_500,
    per_sequence=30,
    per_prefill_token=15,
    per_context_token=0.02,
    noise=0.03,
    pad_to=8,
)
SYSTEMS = (
    System(
        name="one slow engine",
        num_replicas=1,
        max_num_seqs=32,
        max_num_batched_tokens=1024,
        base=17_000,
        per_sequence=150,
        per_prefill_token=40,
        per_context_token=0.1,
        noise=0.03,
    ),
    FAST,
)
LOADS = (0.5, 0.8, 0.95)  # of the simulated Offline throughput


def prompt_lengths() -> list[int]:
    chance = random.Random(7)
    return [min(900, max(20, int(chance.lognormvariate(5.3, 0.6)))) for _ in range(NUM_SAMPLES)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="length of each test (default: 8)")
    seconds = parser.parse_args().seconds
    rows = [row for system in SYSTEMS for row in rows_of(system, seconds)]
    heading = ["engines", "test", "samples", "tokens/s"]
    heading += ["TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"]
    print(table(heading, rows))


def rows_of(system: System, seconds: float) -> Iterator[list[str]]:
    prompts = prompt_lengths()
    burst = offline_conf(1000)
    peak = 1e9 * figures(simulate(system, prompts, "Offline", burst))[0] / NUM_TOKENS
    with served(system, prompts) as dispatcher:
        tests = [("Offline", "Offline", offline_conf(int(peak * seconds)))]
        tests += [
            (f"Server at {share:.0%}", "Server", server_conf(share * peak, seconds))
            for share in LOADS
        ]
        for name, scenario, user_conf in tests:
            simulated = figures(simulate(system, prompts, scenario, user_conf))
            measured = figures(measure(dispatcher, scenario, user_conf))
            ratios = [real / virtual for real, virtual in zip(measured, simulated, strict=True)]
            num_samples = dispatcher.stats().completed
            yield [system.name, name, str(num_samples), *(f"{ratio:.3f}" for ratio in ratios)]


def server_conf(qps: float, seconds: float) -> str:
    return (
        f"*.Server.target_qps = {qps}\n*.Server.min_duration = {round(1000 * seconds)}\n"
        "*.Server.min_query_count = 1\n*.Server.target_latency = 0\n"
        "*.Server.use_token_latencies = 1\n"
    )


def offline_conf(num_samples: int) -> str:
    return (
        f"*.Offline.min_query_count = {num_samples}\n*.Offline.min_duration = 0\n"
        "*.Offline.use_token_latencies = 1\n"
    )


def simulate(system: System, prompts: Sequence[int], scenario: str, user_conf: str) -> Columns:
    simulated = _core.simulate(
        schedule=_core.schedule(
            model=MODEL, scenario=scenario, user_conf=user_conf, num_samples=NUM_SAMPLES
        ),
        prompt_tokens=prompts,
        output_tokens=[NUM_TOKENS] * NUM_SAMPLES,
        service=system.service(),
        num_replicas=system.num_replicas,
        max_num_seqs=system.max_num_seqs,
        max_num_batched_tokens=system.max_num_batched_tokens,
        max_model_len=MAX_MODEL_LEN,
        step_factors=system.step_factors,
    )
    return simulated.samples()


def measure(dispatcher: _core.Dispatcher, scenario: str, user_conf: str) -> Columns:
    dispatcher.reset_stats()
    with tempfile.TemporaryDirectory() as log_dir:
        test = _core.LoadGenTest(
            dispatcher,
            model=MODEL,
            scenario=scenario,
            mode="performance",
            user_conf=user_conf,
            audit_conf="",
            log_dir=log_dir,
            sut_name="replay",
            qsl_name="prompts",
        )
        test.start()
        assert test.wait(600.0) and test.finished, dispatcher.failure
    return dispatcher.samples()


def figures(samples: Columns) -> list[float]:
    """Tokens per second, then TTFT and TPOT at p50 and p99, in nanoseconds."""
    took_ns = max(samples["completed_ns"]) - min(samples["issued_ns"])
    num_samples = len(samples["completed_ns"])
    columns = (samples["issued_ns"], samples["first_token_ns"], samples["completed_ns"])
    rows = list(zip(*columns, strict=True))
    ttft = sorted(first - issued for issued, first, _ in rows)
    tpot = sorted((end - first) / (NUM_TOKENS - 1) for _, first, end in rows)
    quantiles = [each[int(p * num_samples)] for each in (ttft, tpot) for p in (0.5, 0.99)]
    return [NUM_TOKENS * num_samples / took_ns, *quantiles]


@contextmanager
def served(system: System, prompts: Sequence[int]) -> Iterator[_core.Dispatcher]:
    """A dispatcher with the system's engines, ready for LoadGen."""
    run_keys = keys.make(system.num_replicas)
    links = _core.ReplicaLinks(
        host="127.0.0.1",
        secret_key=run_keys.secret,
        engine_keys=[engine.public for engine in run_keys.engines],
        max_output_bytes=2**20,
    )
    store = _core.SampleStore()
    for number, length in enumerate(prompts):
        encoded = request([number] * length, NUM_TOKENS)
        store.add(encoded, encoded.index(wire.PLACEHOLDER) + 1, length)
    dispatcher = _core.Dispatcher(
        links,
        store,
        _core.WireLayout(**wire.PINNED_LAYOUT),
        max_output_tokens=NUM_TOKENS,
        sample_deadline_s=600.0,
        stall_deadline_s=600.0,
    )
    key_files = [KeyFile(engine) for engine in run_keys.engines]
    engines = []
    try:
        for index, key_file in enumerate(key_files):
            host, port = links.handshake_address(index)
            argv = [str(REPLAY_ENGINE), "--handshake", f"tcp://{host}:{port}"]
            argv += ["--seed", str(index), *system.engine_options(index)]
            environment = {**os.environ, keys.VARIABLE: key_file.path}
            engines.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment))
        assert dispatcher.wait_ready(60.0), dispatcher.failure
        for index in range(system.num_replicas):
            dispatcher.set_credit(index, credit(system.max_num_seqs))
        yield dispatcher
    finally:
        dispatcher.close()
        for engine in engines:
            engine.kill()
            engine.wait()
        for key_file in key_files:
            key_file.close()


if __name__ == "__main__":
    main()
