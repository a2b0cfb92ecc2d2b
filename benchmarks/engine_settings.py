"""What each setting of the CPU engine gives: Offline tokens/s with it, beside those without.

Usage: python -m benchmarks.engine_settings [--repeats N] [--only NAME]...

Every setting runs beside the embedded benchmark's own in float32, one after the other, so that both
have the same machine; the ratio is of two runs in one pair. A pair takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from sut.report.markdown import table
from sut.results import record
from sut.results.measures import measure
from sut.rundir import RunDir

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


class Setting(NamedTuple):
    """Changes of the embedded benchmark, and of the engine's environment."""

    sets: tuple[str, ...] = ()
    env: Mapping[str, str] = {}


SETTINGS = {
    "dtype bfloat16": Setting(("engine.dtype=bfloat16",)),
    "64 sequences, 1,024 tokens a step": Setting(
        ("engine.max_num_seqs=64", "engine.max_num_batched_tokens=1024")
    ),
    "8 sequences": Setting(("engine.max_num_seqs=8",)),
    "compiled": Setting(("engine.enforce_eager=false",)),
    "one core": Setting(("site.cpu.cpus=[0]",)),
    "libgomp's own spinning": Setting(env={"GOMP_SPINCOUNT": "300000"}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", action="append", choices=SETTINGS, default=[])
    options = parser.parse_args()
    chosen = options.only or list(SETTINGS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            pairs = []
            for turn in range(options.repeats):
                of = {True: SETTINGS[name], False: Setting()}
                rates = {on: offline(Path(folder), of[on]) for on in (turn % 2 > 0, turn % 2 == 0)}
                pairs.append((rates[False], rates[True]))
                print(f"{name}: {pairs[-1][0]:.1f} without, {pairs[-1][1]:.1f} with", flush=True)
            ratio = statistics.fmean(changed / plain for plain, changed in pairs)
            plain, changed = (", ".join(f"{pair[n]:.1f}" for pair in pairs) for n in (0, 1))
            rows.append([name, plain, changed, f"{ratio:.2f}"])
    print(f"\n{_cpu()}; load {os.getloadavg()[0]:.1f}; Offline, tokens/s\n")
    print(table(["setting", "without", "with", "ratio"], rows))


def offline(folder: Path, setting: Setting) -> float:
    """Output tokens/s of the embedded benchmark. Ends the program where the run fails."""
    command = [sys.executable, "-m", "sut.submit", "--scenario", "offline", "--json", "--wait"]
    command += ["--root", str(folder)]
    sets = ("engine.dtype=float32", *setting.sets)
    command += [word for change in sets for word in ("--set", change)]
    env = {**os.environ, **setting.env}
    done = subprocess.run(command, env=env, capture_output=True)
    if done.returncode not in (0, 1):
        sys.exit(f"error: a run failed: {done.stderr.decode()[-2000:]}")
    run_dir = RunDir(Path(msgspec.json.decode(done.stdout)["run_dir"]))
    found = measure(record.read(run_dir.record).phases[0].loadgen).tokens_per_s
    assert found is not None
    return found


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    by_key = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(by_key.get("flags", "").split())
    has = ", ".join(flag for flag in CPU_FLAGS if flag in flags)
    return f"{by_key.get('model name', 'unknown CPU')}, {os.cpu_count()} CPUs, {has}"


if __name__ == "__main__":
    main()
