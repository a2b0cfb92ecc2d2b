"""Time and memory against the number of samples of a run, and of runs in a list.

Usage: python -m benchmarks.growth [--samples N,...] [--runs N,...]

Each row is a whole process, imports included. The runs are real Offline tests of the replay engine
without step times; what they cost is not shown, only what their files then cost. Lists are of
copies of one record.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.history import copy, make_record
from sut.report.markdown import table
from sut.results import record
from sut.rundir import RunDir

SAMPLES = (100, 1_000, 10_000, 100_000, 1_000_000)
RUNS = (10, 100, 1_000, 10_000)
COMMANDS = (["verdict"], ["verify"], ["report"], ["watch", "--once"])
FREE = ("step_base_us=0", "step_per_sequence_us=0", "prefill_tokens_per_s=1000000000")


class Cost(NamedTuple):
    seconds: float
    mib: float  # most memory at once


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--samples", type=numbers, default=SAMPLES)
    parser.add_argument("--runs", type=numbers, default=RUNS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"load {os.getloadavg()[0]:.1f}\n")
        print(of_samples(Path(folder), options.samples))
        print()
        print(of_runs(Path(folder), options.runs))


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def of_samples(folder: Path, sizes: Sequence[int]) -> str:
    columns: dict[str, list[Cost]] = {}
    for size in sizes:
        made = offline(folder / str(size), size)
        steps = {step.name: step.duration_s for step in record.read(made.record).timings}
        judged = Cost(steps["judge performance"], math.nan)
        columns.setdefault("judged in the run", []).append(judged)
        for command, *options in COMMANDS:
            cost = cost_of([f"sut.{command}", str(made), *options])
            columns.setdefault(f"sut.{command}", []).append(cost)
    return rendered("samples", sizes, columns)


def of_runs(folder: Path, sizes: Sequence[int]) -> str:
    one = make_record(folder / "one")
    columns: dict[str, list[Cost]] = {}
    for size in sizes:
        root = folder / f"of-{size}"
        copy(one, root, size)
        listing = ["sut.history", "--root", str(root)]
        for name in ("first list", "list again"):
            columns.setdefault(name, []).append(cost_of([*listing, "--limit", "0"]))
        columns.setdefault("the last 30", []).append(cost_of([*listing, "--limit", "30"]))
    return rendered("runs", sizes, columns)


def offline(folder: Path, num_samples: int) -> RunDir:
    settings = [f"target_qps={num_samples}", f"min_query_count={num_samples}"]
    settings.append("min_duration_ms=1")
    sets = [f"scenarios.offline.{each}" for each in settings]
    sets += [f"engine.replay.{each}" for each in FREE]
    sets += ["generation.min_tokens=4", "generation.max_tokens=4", "site.timeouts.sample_s=3600"]
    command = [sys.executable, "-m", "sut.submit", "--config", "replay", "--scenario", "offline"]
    command += [word for change in sets for word in ("--set", change)]
    command += ["--wait", "--root", str(folder)]
    subprocess.run(command, stdout=subprocess.DEVNULL)
    return RunDir((folder / "latest").resolve())


def cost_of(words: Sequence[str]) -> Cost:
    """The time and the most memory of ``python -m WORDS``."""
    begin = os.times().elapsed
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"error: {' '.join(words)} exited with {process.returncode}")
    return Cost(os.times().elapsed - begin, used.ru_maxrss / 1024)


def rendered(unit: str, sizes: Sequence[int], columns: dict[str, list[Cost]]) -> str:
    """Seconds and MiB for each size. The last row is the exponent between the largest two sizes: 1
    is linear."""
    head = [unit, *(f"{name}, s (MiB)" for name in columns)]
    rows = [
        [f"{size:,}", *(cell(costs[place]) for costs in columns.values())]
        for place, size in enumerate(sizes)
    ]
    if len(sizes) > 1:
        grown = math.log(sizes[-1] / sizes[-2])
        exponents = [
            math.log(costs[-1].seconds / costs[-2].seconds) / grown for costs in columns.values()
        ]
        rows.append(["exponent", *(f"{each:.2f}" for each in exponents)])
    return table(head, rows)


def cell(cost: Cost) -> str:
    return f"{cost.seconds:.2f}" + ("" if math.isnan(cost.mib) else f" ({cost.mib:,.0f})")


if __name__ == "__main__":
    main()
