"""Press Ctrl-C at random early moments of runs: ``python tools/ctrl_c.py [--runs N] [--seed S]``.

Every run must end as cancelled, with a record, or not have begun, without a folder. Prints each one
that does not, and the counts of both. Uses the replay benchmark. The seed repeats the moments.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sut.results import record
from sut.rundir import RunDir
from sut.watch.observer import Observer

ROOT = Path(__file__).resolve().parents[1]
SETS = ("scenarios.server.min_duration_ms=60000", "engine.replay.step_base_us=200")
END_S = 60.0  # from Ctrl-C to the command's end: far less than the run
NOT_BEGUN, CANCELLED = "not begun, no folder", "cancelled, with a record"


def press(folder: Path, after_s: float) -> str:
    """Start a run, press Ctrl-C, and return what became of it."""
    folder.mkdir()
    command = [sys.executable, "-m", "sut.submit", "--config", "replay", "--scenario", "server"]
    for change in SETS:
        command += ["--set", change]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = (folder / "output.txt").open("w")
    with (
        output,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as run,
    ):
        time.sleep(after_s)
        os.killpg(run.pid, signal.SIGINT)
        try:
            code = run.wait(END_S)
        except subprocess.TimeoutExpired:
            run.kill()
            return "Ctrl-C had no effect"
    runs = [each for each in folder.glob("runs/*") if not each.is_symlink()]
    if not runs:
        # 1: in Python's own start, before any code of ours.
        return NOT_BEGUN if code in (-signal.SIGINT, 130, 1) else f"exit code {code} and no folder"
    (only,) = runs
    state = Observer(RunDir(only)).look().state
    if state != "finished":
        return f"a ghost: exit code {code}, the run is {state}"
    found = record.read(only)
    if found.failure is None or found.failure.code != "cancelled" or code != found.exit_code:
        return f"exit code {code}, recorded as {found.word}, {found.failure}"
    return CANCELLED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, metavar="N")
    parser.add_argument("--at-once", type=int, default=2, metavar="N")
    parser.add_argument("--latest-s", type=float, default=3.0, metavar="S", help="after the start")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    times = [moments.uniform(0, options.latest_s) for _ in range(options.runs)]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.at_once) as pool:
        folders = [Path(scratch) / str(number) for number in range(options.runs)]
        outcomes = list(pool.map(press, folders, times))
        for folder, after_s, outcome in zip(folders, times, outcomes, strict=True):
            if outcome not in (NOT_BEGUN, CANCELLED):
                print(f"after {after_s:.3f} s: {outcome}\n{(folder / 'output.txt').read_text()}")
    for outcome, count in Counter(outcomes).most_common():
        print(f"{count:5} {outcome}")
    return 0 if set(outcomes) <= {NOT_BEGUN, CANCELLED} else 1


if __name__ == "__main__":
    sys.exit(main())
