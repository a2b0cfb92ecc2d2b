"""Memory, latencies, descriptors and threads of a long run, by the minute: are they flat?

Usage: python -m benchmarks.soak --minutes N [--qps Q] [--replicas R] [--millions M]

A Server test of N minutes against replay engines, then an Offline test of M million samples. Both
are whole runs of ``sut.submit``. The process of the run, with LoadGen and the dispatcher in it, is
read from ``/proc``; latencies are those of ``samples.csv``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.__main__ import cpu_model
from sut.report.markdown import table
from sut.results import record, sample_log
from sut.results.progress import Reader
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir

EVERY_S = 1.0  # between readings of the process
MINUTE_S = 60.0
MIB = 2**20
# Answers of four tokens, from engines whose steps take half a millisecond.
ENGINE = (
    "generation.min_tokens=4",
    "generation.max_tokens=4",
    "engine.max_num_seqs=256",
    "engine.replay.step_base_us=500",
    "engine.replay.step_per_sequence_us=0",
    "engine.replay.prefill_tokens_per_s=1000000000",
    "site.timeouts.sample_s=3600",
    "site.timeouts.stall_s=60",
)


class Reading(NamedTuple):
    """A process at a moment."""

    unix_s: float
    resident_bytes: int
    descriptors: int
    threads: int


class Soaked(NamedTuple):
    """A finished run: the readings and samples of its test, which began at ``start_unix_s``."""

    verdict: str
    start_unix_s: float
    duration_s: float
    readings: list[Reading]
    samples: SampleLog


def main() -> int:
    options = _options()
    print(
        f"{len(os.sched_getaffinity(0))} cores, {cpu_model()}; "
        f"load average {os.getloadavg()[0]:.1f}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        if options.minutes:
            duration_ms = round(MINUTE_S * 1e3 * options.minutes)
            settings = [f"target_qps={options.qps:g}", f"min_duration_ms={duration_ms}"]
            settings += ["ttft_latency_ms=10000", "tpot_latency_ms=10000", "min_query_count=1"]
            show(
                f"Server, {options.qps:,.0f} queries/s offered for {options.minutes:g} minutes, "
                f"{options.replicas} replay engines",
                soak(Path(folder) / "server", "server", settings, options.replicas),
            )
        if options.millions:
            count = round(1e6 * options.millions)
            settings = [f"target_qps={count}", f"min_query_count={count}", "min_duration_ms=1"]
            show(
                f"Offline, {count:,} samples, {options.replicas} replay engines",
                soak(Path(folder) / "offline", "offline", settings, options.replicas),
            )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of Server traffic; 0: none")
    parser.add_argument("--qps", type=float, default=5_000, help="queries a second in Server")
    parser.add_argument("--replicas", type=int, default=2, help="replay engines")
    parser.add_argument("--millions", type=float, default=1, help="Offline samples; 0: none")
    return parser.parse_args()


def soak(root: Path, scenario: str, settings: Sequence[str], num_replicas: int) -> Soaked:
    """Make a run under ``root`` and watch its process to its end."""
    sets = [f"scenarios.{scenario}.{each}" for each in settings]
    sets += [*ENGINE, f"site.num_replicas={num_replicas}"]
    command = [sys.executable, "-m", "sut.submit", "--config", "replay", "--scenario", scenario]
    command += [word for change in sets for word in ("--set", change)]
    process = subprocess.Popen([*command, "--root", str(root)], stdout=subprocess.DEVNULL)
    try:
        readings = _readings(process, root / "latest")
    finally:
        process.terminate()
        code = process.wait()
    run_dir = RunDir((root / "latest").resolve())
    result = record.read(run_dir.record)
    samples = sample_log.read(run_dir.samples("performance"))
    if code not in (0, 1) or samples is None:
        sys.exit(f"error: the run failed: {result.failure}")
    (phase,) = result.phases
    assert phase.start_unix_s is not None and phase.duration_s is not None
    end = phase.start_unix_s + phase.duration_s
    during = [each for each in readings if phase.start_unix_s <= each.unix_s <= end]
    return Soaked(result.word, phase.start_unix_s, phase.duration_s, during, samples)


def _readings(command: subprocess.Popen[bytes], latest: Path) -> list[Reading]:
    """The process of the run, until the command ends."""
    found: list[Reading] = []
    pid: int | None = None
    while command.poll() is None:
        if pid is None:
            lines = Reader(latest / "progress.jsonl").read()
            pid = lines[0].pid if lines else None
        reading = None if pid is None else _read(Path(f"/proc/{pid}"))
        found += [reading] if reading else []
        time.sleep(EVERY_S)
    return found


def _read(process: Path) -> Reading | None:
    """None for a process that has ended."""
    try:
        pages = int((process / "statm").read_text().split()[1])
        return Reading(
            unix_s=time.time(),
            resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
            descriptors=len(os.listdir(process / "fd")),
            threads=len(os.listdir(process / "task")),
        )
    except OSError:
        return None


def show(title: str, found: Soaked) -> None:
    head = (
        *("minute", "samples/s", "TTFT p50, ms", "p99, ms", "TPOT p99, ms"),
        *("RSS, MiB", "descriptors", "threads"),
    )
    print(f"{title}: {len(found.samples):,} samples in {found.duration_s:,.1f} s\n")
    print(table(head, rows(found), right=range(1, len(head))))
    print(f"\n{growth(found)}\n", flush=True)


def rows(found: Soaked) -> list[tuple[str, ...]]:
    """A row for each minute, by the time of completion: latencies of its samples, the process at
    its end."""
    samples = found.samples
    minutes: dict[int, list[int]] = {}
    for row, completed_ms in enumerate(samples.completed_ms):
        minutes.setdefault(int(completed_ms / 1e3 / MINUTE_S), []).append(row)
    made = []
    for minute, of_minute in sorted(minutes.items()):
        begin = minute * MINUTE_S
        length_s = min(MINUTE_S, found.duration_s - begin)
        ttft = sorted(samples.ttft_ms(row) for row in of_minute)
        tpot = sorted(ms for row in of_minute if (ms := samples.tpot_ms(row)) is not None)
        seen = [
            each
            for each in found.readings
            if begin <= each.unix_s - found.start_unix_s
            and each.unix_s - found.start_unix_s < begin + MINUTE_S
        ]
        made.append(
            (
                str(minute + 1) + (f" ({length_s:.0f} s)" if length_s < MINUTE_S - 1 else ""),
                f"{len(of_minute) / length_s:,.0f}",
                *(f"{at(ttft, fraction):,.2f}" for fraction in (0.5, 0.99)),
                f"{at(tpot, 0.99):,.2f}",
                f"{seen[-1].resident_bytes / MIB:,.0f}" if seen else "-",
                between([each.descriptors for each in seen]),
                between([each.threads for each in seen]),
            )
        )
    return made


def at(ordered: Sequence[float], fraction: float) -> float:
    """By LoadGen's rule; NaN without values."""
    place = min(len(ordered) - 1, int(len(ordered) * fraction))
    return ordered[place] if ordered else float("nan")


def between(values: Sequence[int]) -> str:
    """``21``, or ``21 to 23``."""
    if not values:
        return "-"
    return str(min(values)) + (f" to {max(values)}" if max(values) > min(values) else "")


def growth(found: Soaked) -> str:
    """What the process gained in the second half of the test: by then all has been used once. The
    last samples are left out, because LoadGen frees its queries when it has issued the last."""
    completed = found.samples.completed_ms
    end = found.start_unix_s + completed[int(0.98 * len(completed))] / 1e3
    middle = found.start_unix_s + found.duration_s / 2
    half = [each for each in found.readings if middle <= each.unix_s <= end]
    if len(half) < 2:
        return "too short to compare its halves"
    first, last = half[0], half[-1]
    begin_ms, end_ms = ((each.unix_s - found.start_unix_s) * 1e3 for each in (first, last))
    count = sum(begin_ms <= each < end_ms for each in completed)
    gained = last.resident_bytes - first.resident_bytes
    of_each = f", {gained / count:,.0f} bytes a sample" if count else ""
    return (
        f"verdict {found.verdict}; in the second half: memory {gained / MIB:+,.1f} MiB{of_each}; "
        f"descriptors {last.descriptors - first.descriptors:+}, "
        f"threads {last.threads - first.threads:+}"
    )


if __name__ == "__main__":
    sys.exit(main())
