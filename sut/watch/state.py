"""The state of a run as values, for the screen and for JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from sut.cluster import slurm
from sut.cluster.liveness import Word
from sut.plan import duration
from sut.plan.hostlist import compact
from sut.plan.plan import Plan, Test
from sut.results.goal import Goal
from sut.results.measures import measure
from sut.results.phase_record import PhaseRecord
from sut.results.progress import Line, ReplicaProgress
from sut.values import Struct
from sut.watch.projection import Projection, project


class ReplicaState(Struct, frozen=True, kw_only=True):
    """One replica. Rates are tokens a second over the last seconds."""

    index: int
    node: str
    in_flight: int
    running: int
    waiting: int
    kv_cache_usage: float  # 0 to 1
    samples: int
    prompt_tokens_per_s: float
    output_tokens_per_s: float


class PhaseState(Struct, frozen=True, kw_only=True):
    """One phase. Counts and latencies are of the whole phase so far, rates of the last seconds.
    ``projection`` is None once the phase has a ``verdict``."""

    name: str
    state: Literal["waiting", "running", "judging", "done", "stopped", "not started"]
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    issued: int = 0
    completed: int = 0
    queued: int = 0
    in_flight: int = 0
    prompt_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    ttft_p99_ms: float | None = None
    ttft_limit_ms: float | None = None
    tpot_p99_ms: float | None = None
    tpot_limit_ms: float | None = None
    projection: Projection | None = None
    replicas: tuple[ReplicaState, ...] = ()


class Shown(Struct, frozen=True, kw_only=True):
    """What a log shows of a failure. Without a known ``cause`` the ``lines`` are its last error
    lines."""

    log: str  # a path
    lines: tuple[str, ...]
    cause: str = ""
    hint: str = ""


class RunState(Struct, frozen=True, kw_only=True):
    """One run. ``state`` is lost if the run ended without a record, and unknown if it has none and
    nothing here knows its process or job: ``why`` is then the evidence. ``ending`` is what a run
    with a record still does. ``left_s`` is an estimate until the end of the last phase;
    ``silent_s`` is the time since the last line of progress, ``unheard_s`` since the last sign of
    the run in its folder or in Slurm. ``shown`` is what the job's output shows of a lost run."""

    run: str  # its folder
    benchmark: str
    scenario: str
    mode: str
    preset: str
    site: str
    state: Word
    job: slurm.JobState | None
    t_s: float | None  # of the last line of progress, from the run's start
    step: str
    silent_s: float | None
    unheard_s: float
    stage: str  # the record's step that is going on, e.g. load; empty between two and in a phase
    stage_s: float | None  # since it began
    step_s: float | None = None  # since ``step``, a part of it, began
    usual_s: float | None  # how long it took in earlier runs that were alike; None: unknown
    left_s: float | None
    phases: tuple[PhaseState, ...]
    target_qps: float | None = None  # of a Server run once it is known, of a sweep's running test
    verdict: str | None = None  # of a finished run
    status: str | None = None
    exit_code: int | None = None
    failure: str | None = None
    why: str = ""
    ending: str = ""
    shown: Shown | None = None


def measured(
    phase: PhaseState, lines: tuple[Line, ...], goal: Goal | None, plan: Plan
) -> PhaseState:
    # Rates cover the window of lines; with only one line, the time since the start.
    last, before = lines[-1], lines[0] if len(lines) > 1 else Line(t_s=0.0, step="")
    return msgspec.structs.replace(
        phase,
        elapsed_s=last.elapsed_s,
        issued=last.issued,
        completed=last.completed,
        queued=last.queued,
        in_flight=last.in_flight,
        prompt_tokens_per_s=_rate(last, before, last.prompt_tokens, before.prompt_tokens),
        output_tokens_per_s=_rate(last, before, last.output_tokens, before.output_tokens),
        ttft_p99_ms=last.ttft_p99_ms,
        ttft_limit_ms=goal.ttft_limit_ms if goal else None,
        tpot_p99_ms=last.tpot_p99_ms,
        tpot_limit_ms=goal.tpot_limit_ms if goal else None,
        projection=project(goal, last) if goal and phase.state != "done" else None,
        replicas=tuple(_replica(replica, last, before, plan) for replica in last.replicas),
    )


def with_result(phase: PhaseState, judged: PhaseRecord) -> PhaseState:
    """With LoadGen's latencies, which the verdict is on; those of a running test are the
    dispatcher's."""
    found = measure(judged.loadgen)
    return msgspec.structs.replace(
        phase, ttft_p99_ms=found.ttft_ms.p99, tpot_p99_ms=found.tpot_ms.p99
    )


def _rate(last: Line, before: Line, now: int, then: int) -> float:
    elapsed_s = last.elapsed_s - before.elapsed_s
    return round((now - then) / elapsed_s, 1) if elapsed_s > 0 else 0.0


def _replica(now: ReplicaProgress, last: Line, before: Line, plan: Plan) -> ReplicaState:
    nothing = ReplicaProgress(
        index=now.index, in_flight=0, running=0, waiting=0, kv_cache_usage=0.0, output_tokens=0
    )
    then = next((r for r in before.replicas if r.index == now.index), nothing)
    return ReplicaState(
        index=now.index,
        node=_node_names(plan, now.index),
        in_flight=now.in_flight,
        running=now.running,
        waiting=now.waiting,
        kv_cache_usage=now.kv_cache_usage,
        samples=now.completed,
        prompt_tokens_per_s=_rate(last, before, now.prompt_tokens, then.prompt_tokens),
        output_tokens_per_s=_rate(last, before, now.output_tokens, then.output_tokens),
    )


def _node_names(plan: Plan, replica: int) -> str:
    """A replica's nodes; one whose name is not known yet has its number."""
    parts = plan.replicas[replica].parts if replica < len(plan.replicas) else ()
    return compact(plan.nodes[part.node].name or f"node {part.node}" for part in parts)


def left_s(
    plan: Plan, phases: tuple[PhaseState, ...], chosen_qps: float | None = None
) -> float | None:
    """Time until the last phase ends: the running one by its rate, the others as planned.
    ``chosen_qps`` is the load that the run chose, if it does."""
    total_s = 0.0
    for phase in phases:
        if phase.state == "running":
            if phase.projection is None or phase.projection.left_s is None:
                return None
            total_s += phase.projection.left_s
        elif phase.state == "waiting":
            total_s += duration.of_tests(
                plan.scenario,
                [Test.named(phase.name)],
                plan.loadgen_settings,
                plan.dataset.num_samples,
                lambda test: plan.chosen_qps(test, chosen_qps),
                plan.compliance,
            )
    return round(total_s, 1)
