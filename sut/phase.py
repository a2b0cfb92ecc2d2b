"""One phase: a LoadGen test over the served replicas, judged."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sut import _core
from sut.dataset import Samples
from sut.plan import Mode, Plan
from sut.progress import Progress
from sut.results import accuracy, mllog, sample_log, verdict
from sut.results.record import (
    DispatcherStats,
    InterruptedPhase,
    PhaseRecord,
    Quantiles,
    ReplicaWork,
)
from sut.rundir import RunDir
from sut.serving import POLL_S, Serving

FLUSH_S = 5.0


def run_phase(
    mode: Mode, serving: Serving, run_dir: RunDir, samples: Samples, progress: Progress
) -> _core.Stats:
    """Run LoadGen's test of ``mode`` to its end and return the dispatcher's count of it.

    Raises RunError when it can't end. LoadGen's thread is then left in its test, and this
    process must leave by :func:`os._exit`.
    """
    plan = serving.plan
    log_dir = run_dir.loadgen(mode)
    log_dir.mkdir(parents=True, exist_ok=True)
    test = _core.LoadGenTest(
        serving.dispatcher,
        model=plan.loadgen_name,
        scenario=plan.scenario.loadgen,
        mode=mode,
        user_conf=str(run_dir.user_conf),
        audit_conf="",
        log_dir=str(log_dir),
        sut_name=f"{plan.site} x{len(plan.replicas)} {plan.engine.kind}",
        qsl_name=plan.dataset.name,
    )
    serving.dispatcher.reset_stats()
    test.start()
    try:
        while not test.wait(POLL_S):
            serving.check()
            if progress.due(mode):
                progress.phase(mode, serving.dispatcher.stats(), _num_over(serving, test))
        if not test.finished:
            serving.check()
    except BaseException as error:
        serving.dispatcher.fail("interrupted", str(error))  # the first reason stands
        test.wait(FLUSH_S)  # for LoadGen's logs as far as they go
        with contextlib.suppress(OSError):  # what failed first is what to tell
            sample_log.write(run_dir.samples(mode), serving.dispatcher.samples())
        raise
    sample_log.write(run_dir.samples(mode), serving.dispatcher.samples())
    stats = serving.dispatcher.stats()
    progress.phase(mode, stats, _num_over(serving, test), last=True)
    return stats


def interrupted(
    mode: Mode, plan: Plan, stats: _core.Stats, node_names: Sequence[str]
) -> InterruptedPhase:
    """What is to be kept of a phase that did not come to its end."""
    return InterruptedPhase(
        name=mode,
        dispatcher=_dispatcher_stats(stats),
        replicas=_work(plan, stats, node_names),
    )


def _num_over(serving: Serving, test: _core.LoadGenTest) -> tuple[int, int] | None:
    """How many samples are over LoadGen's limits on TTFT and TPOT; None where it has none."""
    limits = test.limits_ns
    if limits is None:
        return None
    ttft_ns, tpot_ns = limits
    return serving.dispatcher.num_over(ttft_ns=ttft_ns, tpot_ns=tpot_ns)


def judge_phase(
    mode: Mode,
    plan: Plan,
    run_dir: RunDir,
    samples: Samples,
    stats: _core.Stats,
    model_path: Path | None,
    node_names: Sequence[str],
) -> PhaseRecord:
    """Read LoadGen's logs of a phase and judge them. ``node_names`` are those of the plan's nodes,
    in its order. Raises RunError, InputError."""
    log = mllog.read(run_dir.loadgen(mode))
    num_failed = stats.issued - stats.completed
    replica_samples = [replica.completed for replica in stats.replicas]
    scores, num_scored = None, None
    if mode is Mode.ACCURACY:
        num_scored = log.count("effective_accuracy_sample_count")
        scores = accuracy.score_phase(
            run_dir.loadgen(mode),
            plan,
            num_samples=num_scored,
            prompts=samples.prompts,
            references=samples.references,
            model_path=model_path,
        )
        judged = verdict.judge_accuracy(
            scores,
            plan.accuracy,
            log=log,
            num_scored=num_scored,
            num_samples=len(samples.prompts),
            num_failed=num_failed,
            replica_samples=replica_samples,
            official=plan.official,
        )
    else:
        judged = verdict.judge_performance(
            log, num_failed=num_failed, replica_samples=replica_samples, official=plan.official
        )
    return PhaseRecord(
        name=mode,
        loadgen=log.values,
        loadgen_errors=tuple(error.message for error in log.errors),
        verdict=judged,
        replicas=_work(plan, stats, node_names),
        dispatcher=_dispatcher_stats(stats),
        accuracy=scores,
        num_scored=num_scored,
    )


def _work(plan: Plan, stats: _core.Stats, node_names: Sequence[str]) -> tuple[ReplicaWork, ...]:
    total = stats.output_tokens or 1
    nodes = [[node_names[part.node] for part in replica.parts] for replica in plan.replicas]
    return tuple(
        ReplicaWork(
            index=replica.index,
            node=nodes[replica.index][0],
            nodes=tuple(nodes[replica.index]),
            samples=replica.completed,
            prompt_tokens=replica.prompt_tokens,
            output_tokens=replica.output_tokens,
            busy_s=round(replica.busy_ns / 1e9, 3),
            share=round(replica.output_tokens / total, 4),
        )
        for replica in stats.replicas
    )


def _dispatcher_stats(stats: _core.Stats) -> DispatcherStats:
    return DispatcherStats(
        elapsed_s=round(stats.elapsed_ns / 1e9, 3),
        issued=stats.issued,
        completed=stats.completed,
        failed=stats.failed,
        prompt_tokens=stats.prompt_tokens,
        output_tokens=stats.output_tokens,
        ttft_ms=_quantiles(stats.ttft_ns),
        tpot_ms=_quantiles(stats.tpot_ns),
    )


def _quantiles(ns: dict[str, int]) -> Quantiles | None:
    if not ns:
        return None
    ms = {name.replace(".", "_"): value / 1e6 for name, value in ns.items()}
    return Quantiles(**ms)
