"""The load of every system, and the results in its LoadGen log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import sut
from sut.results import mllog
from sut.results.measures import TTFT_KEY, measure, percentile_key

MODEL = "bench"  # LoadGen's model key in the user.conf below
NUM_SAMPLES = 1000
PROMPT = list(range(100, 356))  # 256 tokens
REPLAY_ENGINE = Path(sut.__file__).parent / "replay_engine"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One LoadGen test. Every answer has ``num_tokens`` tokens, each in its own event."""

    scenario: str  # Server or Offline
    qps: float  # Offline: determines the number of samples
    duration_s: float
    num_tokens: int
    num_seqs: int = 256  # per engine

    def user_conf(self) -> str:
        values = {
            "target_qps": self.qps,
            "min_duration": int(self.duration_s * 1000),
            "min_query_count": 1,
            "performance_sample_count_override": NUM_SAMPLES,
            "use_token_latencies": 1,
            "target_latency": 0,
            "ttft_latency": 1_000_000,
            "tpot_latency": 1_000_000,
        }
        return "".join(f"{MODEL}.{self.scenario}.{k} = {v}\n" for k, v in values.items())


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one system under one load."""

    system: str
    load: Load
    cpu_s: float  # of the front-end's process during the test
    queries_per_s: float  # completed
    token_events_per_s: float
    cpu_us_per_token_event: float
    ttft_p50_us: float | None
    ttft_p99_us: float | None
    ttft_p999_us: float | None
    num_loadgen_errors: int


def read_result(system: str, load: Load, log_dir: Path, cpu_s: float) -> Result:
    """The result of a test with LoadGen logs in ``log_dir``."""
    log = mllog.read(log_dir)
    measures = measure(log.values)
    offline = load.scenario == "Offline"
    num_queries = log.count("generated_samples_per_query" if offline else "result_query_count")
    assert measures.duration_s is not None and measures.samples_per_s is not None
    per_s = num_queries / measures.duration_s if offline else measures.samples_per_s
    ttft = measures.ttft_ms
    p999_ns = log.values.get(percentile_key(TTFT_KEY, 0.999))
    return Result(
        system=system,
        load=load,
        cpu_s=cpu_s,
        queries_per_s=per_s,
        token_events_per_s=per_s * load.num_tokens,
        cpu_us_per_token_event=1e6 * cpu_s / (num_queries * load.num_tokens),
        ttft_p50_us=None if ttft.p50 is None else 1e3 * ttft.p50,
        ttft_p99_us=None if ttft.p99 is None else 1e3 * ttft.p99,
        ttft_p999_us=p999_ns / 1e3 if isinstance(p999_ns, int | float) else None,
        num_loadgen_errors=log.num_errors,
    )


def request(prompt: Sequence[int], num_tokens: int) -> bytes:
    """An EngineCoreRequest with the placeholder id, as msgpack."""
    params = {"min_tokens": num_tokens, "max_tokens": num_tokens}
    fields = ["0" * 16, list(prompt), None, params, None, 0.0, None, None, None]
    return msgspec.msgpack.encode(fields)


def start_engine(
    load: Load, host: str, port: int, added: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A replay engine whose steps and prefill take no time, with ``added`` in its environment."""
    argv = [str(REPLAY_ENGINE), "--handshake", f"tcp://{host}:{port}", "--seed", "1"]
    argv += ["--max-num-seqs", str(load.num_seqs), "--max-model-len", "1024"]
    argv += ["--max-num-batched-tokens", "65536", "--prefill-tokens-per-s", "0"]
    argv += ["--step-base-us", "0", "--step-per-sequence-us", "0"]
    return subprocess.Popen(argv, stderr=subprocess.DEVNULL, env={**os.environ, **(added or {})})


def arguments() -> tuple[Load, Path]:
    """The arguments of a system's program: the load as JSON and the folder of LoadGen's logs."""
    log_dir = Path(sys.argv[2])
    load = msgspec.json.decode(sys.argv[1], type=Load)
    (log_dir / "user.conf").write_text(load.user_conf())
    return load, log_dir
