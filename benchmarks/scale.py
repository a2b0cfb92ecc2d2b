"""Usage: python -m benchmarks.scale [PROGRAM...]: the dispatcher with 1 to 512 replicas.

Run ``make bench`` first. Another PROGRAM is ``benchmarks/scale.cc`` built with another version of
the dispatcher, which is measured in turn. The engines are simulated in the measured process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from benchmarks.__main__ import PROGRAMS, cpu_model
from sut import _core
from sut.report.markdown import table
from sut.results.gpus import A30
from sut.run.simulator import service_model

NUM_REPLICAS = (1, 8, 64, 113, 146, 256, 512)
SECONDS = 2.0
STEPS_REPLICAS = (1, 64)
NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS = 900, 128
SAMPLES_PER_REPLICA = 1_000


def main() -> int:
    programs = [str(PROGRAMS / "scale"), *sys.argv[1:]]
    rows = [measure(program, count) for count in NUM_REPLICAS for program in programs]
    print(f"{len(os.sched_getaffinity(0))} cores, {cpu_model()}; load average {os.getloadavg()[0]}")
    head = ("replicas", "program", "CPU us/wake-up", "token events/s", "CPU us/event", "of all")
    print(table(head, rows, right=(0, 2, 3, 4, 5)))
    one, many = (float(run(programs[0], "steps", n)[0]) for n in STEPS_REPLICAS)
    print(
        f"{STEPS_REPLICAS[1]} replicas, steps as long as a GPU's: {many / 64 / one:.1%} of linear"
    )
    one, many = (samples_per_s(n) for n in STEPS_REPLICAS)
    print(f"the same in virtual time, {A30.name}: {many / 64 / one:.1%} of linear")
    return 0


def measure(program: str, num_replicas: int) -> Sequence[str]:
    (wakeup_us,) = run(program, "wakeups", num_replicas)
    per_s, own_us, all_us = run(program, "events", num_replicas)
    if wakeup_us == "-":
        return (str(num_replicas), program, "-", "-", "-", "-")
    rate = f"{float(per_s):,.0f}"
    figures = [f"{float(value):.2f}" for value in (wakeup_us, own_us, all_us)]
    return (str(num_replicas), program, figures[0], rate, figures[1], figures[2])


def run(program: str, what: str, num_replicas: int) -> list[str]:
    """The figures that it prints, or as many dashes where it fails, with its reason on stderr."""
    words = [program, what, str(num_replicas), str(SECONDS)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, timeout=600)
    return done.stdout.split() or ["-"] * (1 if what == "wakeups" else 3)


def samples_per_s(num_replicas: int) -> float:
    """Offline, with the step times of an A30."""
    count = SAMPLES_PER_REPLICA * num_replicas
    settings = {"target_qps": count, "min_duration": 1000, "min_query_count": 1}
    conf = "".join(f"bench.Offline.{key} = {value}\n" for key, value in settings.items())
    schedule = _core.schedule(model="bench", scenario="Offline", user_conf=conf, num_samples=1000)
    simulated = _core.simulate(
        schedule=schedule,
        prompt_tokens=[NUM_PROMPT_TOKENS] * 1000,
        output_tokens=[NUM_OUTPUT_TOKENS] * 1000,
        service=service_model(msgspec.structs.replace(A30.times, noise=0.05)),
        num_replicas=num_replicas,
        max_num_seqs=A30.max_num_seqs,
        max_num_batched_tokens=A30.max_num_batched_tokens,
        max_model_len=2048,
    )
    return 1e9 * len(schedule) / simulated.end_ns


if __name__ == "__main__":
    sys.exit(main())
