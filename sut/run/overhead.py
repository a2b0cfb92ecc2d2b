"""Measures what the harness costs on the head, before the first phase and never while a test runs.

The engines of the run are ready and idle then. The traffic has its own process, engine and keys
(:mod:`sut.run.overhead_probe`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import fmean

import msgspec

from sut.inputs.dataset import Samples
from sut.plan.benchmark import AUTO
from sut.plan.plan import Mode, Test
from sut.results.overhead import Overhead
from sut.run.overhead_probe import Probe
from sut.run.recorder import Recorder
from sut.values import UNDECODABLE

WITHIN_S = 30.0
# Replay engines use no GPU; neither does the process beside them.
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}


def certify(recorder: Recorder, samples: Samples) -> None:
    """Measure and record the overhead, where the plan asks for it. Never fails the run: without a
    measurement the reason is recorded."""
    if not recorder.plan.measure_overhead or Test(Mode.PERFORMANCE) not in recorder.tests_to_do:
        return
    with recorder.step("overhead"):
        recorder.progress.step("measuring the harness's own overhead")
        recorder.keep_overhead(run(_probe(recorder, samples)))


def _probe(recorder: Recorder, samples: Samples) -> Probe:
    plan = recorder.plan
    planned = plan.loadgen_settings.target_qps
    if planned == AUTO:
        planned = recorder.chosen_qps
    if plan.sweep:
        planned = max(plan.sweep)
    return Probe(
        prompt_tokens=max(1, round(fmean(map(len, samples.prompts)))),
        max_tokens=plan.generation.max_tokens,
        max_num_seqs=plan.engine.max_num_seqs,
        planned_qps=planned if plan.scenario.loadgen == "Server" else None,
    )


def run(probe: Probe, within_s: float = WITHIN_S) -> Overhead:
    """The probe's measurement, or the reason why there is none."""
    argv = [sys.executable, "-m", "sut.run.overhead_probe", msgspec.json.encode(probe).decode()]
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **NO_GPU},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
        )
    except subprocess.TimeoutExpired:
        return Overhead(not_measured=f"not finished after {within_s:g} s")
    except OSError as error:
        return Overhead(not_measured=f"cannot start {sys.executable}: {error.strerror}")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        return Overhead(not_measured=last[0] if last else f"exit status {done.returncode}")
    try:
        return msgspec.json.decode(done.stdout, type=Overhead)
    except UNDECODABLE as error:
        return Overhead(not_measured=f"unreadable result: {error}")
