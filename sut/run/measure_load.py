"""Measures the served replicas, simulates the run, and chooses the load that LoadGen offers.

The run's own requests go through the dispatcher outside LoadGen. A replica's credit is the number
of samples that it has in flight: as soon as one completes, the next is admitted. Every step of the
engines is logged meanwhile.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sut import _core
from sut.errors import RunError
from sut.plan import duration
from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode, Plan, Test
from sut.results import offered, peak, service, steps
from sut.results.offered import Batch, OfferedLoad
from sut.results.peak import Limits, Peak
from sut.results.progress import Progress
from sut.results.service import ServiceTimes
from sut.results.steps import EngineStep
from sut.results.work import quantiles
from sut.run.credit import credit
from sut.run.replicas import Replicas
from sut.run.simulator import Simulator, output_tokens
from sut.rundir import RunDir
from sut.units import number, quantity

FULL_S = 4.0  # about how long the full batch is measured
SMALL_S = 2.0  # and the small one
SMALL = 8  # the small batch is this part of the full one
MAX_WAVES = 64
SEED = 11  # of the choice of samples


class Measured(NamedTuple):
    """A batch, the engines' steps meanwhile, and the dispatcher's samples."""

    batch: Batch
    steps: list[EngineStep]
    samples: Mapping[str, Sequence[int]]


def choose(
    replicas: Replicas, run_dir: RunDir, progress: Progress, prompt_tokens: Sequence[int]
) -> OfferedLoad:
    """Measure a small and a full batch, simulate the run, and choose the load. ``prompt_tokens``
    are by index of the sample. Raises RunError."""
    limits = limits_of(replicas, run_dir)
    try:
        small, full = _small_and_full(replicas, progress)
    except RunError as error:
        if error.code != "generate_timeout":
            raise
        limit, scenario = quantity(replicas.plan.timeouts.warmup_s, "s"), replicas.plan.scenario
        raise RunError(
            f"the load could not be measured within {limit}",
            hint=f"set it: --set scenarios.{scenario}.target_qps=N, or allow more time: --set "
            "site.timeouts.warmup_s=SECONDS",
            code="measure_load",
        ) from None
    times = service.fit([*small.steps, *full.steps])
    find = None
    if limits is not None and times is not None:
        progress.step("measuring the load: simulating the run")
        find = _finder(replicas.plan, limits, prompt_tokens, full, times)
    return offered.choose(
        full.batch,
        small.batch,
        times,
        find,
        has_arrivals=replicas.plan.scenario is not Scenario.OFFLINE,
        has_limits=limits is not None,
    )


def _finder(
    plan: Plan,
    limits: Limits,
    prompt_tokens: Sequence[int],
    full: Measured,
    times: ServiceTimes,
) -> Callable[[float], Peak]:
    """Finds the peak of this plan with every step so many times as long."""
    answers = output_tokens(full.samples, plan.dataset.num_samples)
    simulator = Simulator(plan, limits, prompt_tokens, answers)
    return lambda slowdown: peak.find(
        lambda qps: simulator.attempt(qps, times, slowdown), full.batch.samples_per_s / slowdown
    )


def _small_and_full(replicas: Replicas, progress: Progress) -> tuple[Measured, Measured]:
    deadline = time.monotonic() + replicas.plan.timeouts.warmup_s
    places = replicas.plan.engine.max_num_seqs
    progress.step("measuring the load: a small batch")
    small = measured(replicas, max(1, places // SMALL), SMALL_S, deadline)
    progress.step("measuring the load: a full batch")
    return small, measured(replicas, places, FULL_S, deadline)


def limits_of(replicas: Replicas, run_dir: RunDir) -> Limits | None:
    """LoadGen's limits on this run, from mlperf.conf and the plan's settings."""
    plan = replicas.plan
    test = _core.LoadGenTest(
        replicas.dispatcher,
        model=plan.loadgen_name,
        scenario=plan.scenario.loadgen,
        mode=Mode.PERFORMANCE,
        user_conf=plan.user_conf(),
        audit_conf="",
        log_dir=str(run_dir.root),
        sut_name="",
        qsl_name="",
    )
    if test.limits_ns is None:
        return None
    ttft_ns, tpot_ns = test.limits_ns
    return Limits(ttft_ms=ttft_ns / 1e6, tpot_ms=tpot_ns / 1e6)


def measured(
    replicas: Replicas, per_replica: int, about_s: float, deadline: float, most_samples: int = 0
) -> Measured:
    """Keep ``per_replica`` samples in flight on every replica for about ``about_s``, until
    ``deadline`` of :func:`time.monotonic` at most, and log the engines' steps. ``most_samples`` is
    a limit on their number, if it is not 0. Raises RunError."""
    in_flight = per_replica * len(replicas.plan.replicas)
    most_waves = max(0, most_samples // in_flight - 1) if most_samples else MAX_WAVES
    replicas.limit_in_flight(per_replica)
    replicas.dispatcher.log_steps(True)
    try:
        begin = time.monotonic()
        _generate(replicas, in_flight, deadline)
        wave_s = time.monotonic() - begin
        # The first wave also warmed up; where it was slow, it has to do.
        if waves := min(most_waves, int(about_s / wave_s)):
            _generate(replicas, (1 + waves) * in_flight, deadline)
    finally:
        replicas.dispatcher.log_steps(False)
        replicas.limit_in_flight(credit(replicas.plan.engine.max_num_seqs))
    samples, frames = replicas.dispatcher.samples(), replicas.dispatcher.steps()
    found = steps.of_dispatcher(frames, samples, replicas.plan.engine.max_num_batched_tokens)
    return Measured(batch_of(samples, in_flight), found, samples)


def _generate(replicas: Replicas, num_samples: int, deadline: float) -> None:
    """Run samples of the data set on any replica. The counts of the dispatcher are then theirs."""
    source, data = random.Random(SEED), range(replicas.plan.dataset.num_samples)
    replicas.dispatcher.reset_stats()
    replicas.generate(source.choices(data, k=num_samples), max(0.0, deadline - time.monotonic()))


def batch_of(columns: Mapping[str, Sequence[int]], in_flight: int) -> Batch:
    """The measures of a batch, from the dispatcher's samples of one or more waves.

    Every admission after the first wave is a completion while all places were taken.
    """
    admitted, first = columns["admitted_ns"], columns["first_token_ns"]
    completed, tokens = columns["completed_ns"], columns["output_tokens"]
    order = sorted(admitted)
    refills = len(order) - in_flight
    if refills > 0:
        rate = refills / (order[-1] - order[0]) * 1e9
    else:
        rate = len(order) / (max(completed) - order[0]) * 1e9
    starts_later = order[in_flight] if refills > 0 else order[0]
    rows = range(len(order))
    ttft = quantiles((first[i] - admitted[i]) / 1e6 for i in rows if admitted[i] >= starts_later)
    tpot = quantiles((completed[i] - first[i]) / 1e6 / max(1, tokens[i] - 1) for i in rows)
    assert ttft is not None and tpot is not None
    return Batch(
        in_flight=in_flight,
        num_samples=len(order),
        samples_per_s=rate,
        ttft_ms=ttft.p90,
        tpot_ms=tpot.p90,
    )


def require_time(plan: Plan, load: OfferedLoad, tests: Sequence[Test], elapsed_s: float) -> None:
    """Raise RunError where the tests at this load would exceed the wall limit."""
    if plan.slurm is None:
        return
    settings, num_samples = plan.settings_at(load.target_qps), plan.dataset.num_samples
    needed_s = duration.of_tests(
        plan.scenario, tests, settings, num_samples, compliance=plan.compliance
    )
    limit_s = 60 * plan.slurm.time_min - plan.slurm.signal_delay_s
    left_s = max(0.0, limit_s - elapsed_s)
    if needed_s <= left_s:
        return
    more_min = math.ceil((duration.SLACK * needed_s - left_s) / 60)
    raise RunError(
        f"at the measured load, {number(load.target_qps)} queries/s, the run takes about "
        f"{quantity(needed_s / 60, 'minutes')}; the wall limit leaves {number(left_s / 60)}",
        hint=f"allow more time: --set site.slurm.time_min={plan.slurm.time_min + more_min}",
        code="wall_limit",
    )
