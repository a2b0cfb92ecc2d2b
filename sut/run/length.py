"""How long a run is expected to take, before it is queued: its tests, simulated.

The step times are those of the newest run under the run root that measured the same engines, or of
the table of GPUs (:mod:`sut.results.gpus`).
"""

from __future__ import annotations

import contextlib
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sut.errors import InputError
from sut.plan import duration
from sut.plan.benchmark import DatasetKind, EngineKind, Scenario
from sut.plan.plan import Mode, Plan
from sut.plan.site import Device
from sut.results import gpus, offered, record, tuning, usual
from sut.results.length import Length, limit_s
from sut.run import forecast
from sut.run.forecast import Basis, Forecast
from sut.rundir import RunDir
from sut.units import number, quantity
from sut.values import UNDECODABLE

MOST_QUERIES = 500_000  # of a test
MOST_TOKENS = 60_000_000  # of all simulated answers: at most some seconds
MEASURED_FASTEST = 0.8  # of step times that a run measured
NUM_SEEN = 40  # records read, from the newest
NUM_PROBES = 3  # of a search


class _Found(NamedTuple):
    """``fastest`` is the basis with the shortest steps and answers that are possible."""

    basis: Basis
    fastest: Basis
    why_fastest: str


class _Service(msgspec.Struct):
    service: Any = None


class _Plan(msgspec.Struct):
    """What step times and lengths depend on."""

    benchmark: str
    site: str
    device: str
    model: Any
    dataset: Any
    generation: Any
    engine: Any


class _Record(msgspec.Struct):
    plan: _Plan
    load: _Service | None = None
    tuning: _Service | None = None

    @property
    def measured(self) -> bool:
        return any(each is not None and each.service for each in (self.load, self.tuning))


_decoder = msgspec.json.Decoder(_Record)


def expect(plan: Plan, run_root: Path) -> Length | str:
    """The length, or why it is not known."""
    if not plan.tests:
        return "it has no test"
    if plan.scenario is Scenario.SINGLE_STREAM:
        return "singlestream is not simulated"
    if (count := _num_queries(plan)) > MOST_QUERIES:
        return f"{quantity(count, 'queries')} take too long to simulate"
    found = _measured(plan, run_root) or _of_gpu(plan)
    if found is None:
        return (
            f"no run under {run_root} measured the steps of these engines, and their step times "
            "are in no table; a run with target_qps=auto measures them"
        )
    times = usual.step_times(run_root, plan)
    startup_s = sum(took for name, took in times.items() if not _is_test(name)) if times else None
    try:
        tests_s, load = _tests_s(found.basis)
        made = Length(tests_s=tests_s, startup_s=startup_s, source=found.basis.source, load=load)
        if plan.slurm is None or made.total_s <= limit_s(plan):
            return made
        shortest_s, why = _shortest_s(found.fastest), found.why_fastest
        return msgspec.structs.replace(made, shortest_s=shortest_s, fastest=why)
    except InputError as error:
        return str(error).splitlines()[0]


def _is_test(step: str) -> bool:
    return step.partition("-")[0] in (Mode.PERFORMANCE, Mode.ACCURACY, Mode.COMPLIANCE)


def _num_queries(plan: Plan) -> int:
    """Of the longest performance test."""
    loads = plan.sweep or (plan.loadgen_settings.target_qps,)
    rates = [float(qps) for qps in loads if isinstance(qps, int | float)]
    return max((round(qps * _performance_s(plan, qps)) for qps in rates), default=0)


def _performance_s(plan: Plan, qps: float) -> float:
    settings, num_samples = plan.settings_at(qps), plan.dataset.num_samples
    return duration.phase_s(plan.scenario, Mode.PERFORMANCE, settings, num_samples)


def _measured(plan: Plan, run_root: Path) -> _Found | None:
    """Of the newest run that measured these engines."""
    ours = msgspec.json.decode(msgspec.json.encode(plan), type=_Plan)
    for name in usual.newest(run_root)[:NUM_SEEN]:
        run_dir = RunDir(run_root / name)
        with contextlib.suppress(OSError, InputError, *UNDECODABLE):  # running, or not a run
            found = _decoder.decode(run_dir.record.read_bytes())
            if found.measured and found.plan == ours:
                basis = forecast.of_run(run_dir, record.read(run_dir.record))
                basis = forecast.for_plan(basis, plan)
                why = f"even if every step takes {MEASURED_FASTEST:.0%} of the measured time"
                return _Found(basis, _faster(basis, MEASURED_FASTEST), why)
    return None


def _of_gpu(plan: Plan) -> _Found | None:
    """Of the table, where it has this model and the GPUs that the job asks for."""
    engine, asked = plan.engine, plan.slurm
    size = engine.tensor_parallel_size * engine.pipeline_parallel_size
    is_known = engine.kind is EngineKind.VLLM and plan.device is Device.CUDA and size == 1
    of_table = plan.model.loadgen_name == gpus.MODEL and plan.dataset.kind is DatasetKind.CNN_EVAL
    if asked is None or not is_known or not of_table:
        return None
    text = " ".join([asked.gres, asked.constraint, *map(str, asked.sbatch.values())])
    words = re.findall(r"[a-z0-9]+", text.lower())
    names = [word for word in dict.fromkeys(words) if word in gpus.BY_NAME]
    if len(names) != 1:
        return None
    gpu = gpus.BY_NAME[names[0]]
    basis = forecast.of_gpu(gpu, plan)
    shortest = (plan.generation.min_tokens,) * len(basis.output_tokens)
    fastest = msgspec.structs.replace(_faster(basis, gpu.fastest), output_tokens=shortest)
    return _Found(
        basis, fastest, "even at the peaks of the GPU's data sheet and with short answers"
    )


def _faster(basis: Basis, scale: float) -> Basis:
    """With every step so many times as long."""
    times = basis.service
    service = msgspec.structs.replace(
        times,
        base_us=scale * times.base_us,
        per_sequence_us=scale * times.per_sequence_us,
        per_prefill_token_us=scale * times.per_prefill_token_us,
        per_context_token_us=scale * times.per_context_token_us,
        hiccup_us=scale * times.hiccup_us,
    )
    return msgspec.structs.replace(basis, service=service)


def _tests_s(basis: Basis) -> tuple[float, str]:
    """The time of all tests, and the load in words where the run chooses it. Raises InputError."""
    plan = basis.plan
    if not plan.measures_load:
        return _given_s(basis), ""
    found = _forecast(basis)
    if plan.tune:
        probes_s = NUM_PROBES * tuning.probe_s(_performance_s(plan, found.target_qps))
        return found.tests_s + probes_s, "a search with one trial"
    if found.peak_qps is None:  # Offline
        return found.tests_s, ""
    least = offered.LEAST * found.peak_qps
    load = f"{number(least)} queries/s, the least that auto offers"
    return _forecast(basis, least).tests_s, load


def _shortest_s(basis: Basis) -> float:
    """The time of all tests, at the highest VALID load where the run chooses it."""
    return _forecast(basis).tests_s if basis.plan.measures_load else _given_s(basis)


def _given_s(basis: Basis) -> float:
    """At the plan's loads: a test at each one of a sweep."""
    plan = basis.plan
    loads = plan.sweep or (float(plan.loadgen_settings.target_qps or 1.0),)
    return statistics.fmean(_forecast(basis, qps).tests_s for qps in loads)


def _forecast(basis: Basis, qps: float | None = None) -> Forecast:
    return forecast.forecast(basis, len(basis.plan.replicas), qps, MOST_TOKENS)
