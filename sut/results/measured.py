"""The record of one phase: LoadGen's logs and the dispatcher's counts, with the verdict on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sut import _core
from sut.inputs import hashes
from sut.inputs.dataset import Samples
from sut.plan.plan import Mode, Plan, Test
from sut.results import (
    accuracy,
    compliance_files,
    cost,
    goodput,
    issue_delay,
    losses,
    sample_log,
    telemetry,
    work,
)
from sut.results.budget import Hopeless
from sut.results.engine_report import EngineReport
from sut.results.issue_delay import IssueDelay
from sut.results.losses import ReplicaLoss
from sut.results.phase_record import DispatcherStats, InterruptedPhase, PhaseRecord
from sut.results.phase_verdict import judge_phase
from sut.results.sample_log import SampleLog
from sut.results.telemetry import NodeTelemetry
from sut.rundir import RunDir


class Measured(NamedTuple):
    """A finished LoadGen test: the dispatcher's counts and its time."""

    stats: _core.Stats
    start_unix_s: float
    duration_s: float
    hopeless: Hopeless | None = None
    losses: tuple[ReplicaLoss, ...] = ()
    other_cpus: float | None = None


def record_phase(
    test: Test,
    plan: Plan,
    run_dir: RunDir,
    samples: Samples,
    measured: Measured,
    model_path: Path | None,
    node_names: Sequence[str],
    chosen_qps: float | None,
    engines: tuple[EngineReport, ...],
) -> PhaseRecord:
    """Read LoadGen's logs of a phase and judge them, and what its engines report. ``node_names``
    are those of the plan's nodes, in its order. Raises RunError, InputError."""
    log_dir, stats = run_dir.loadgen(test.name), measured.stats
    replicas = _replicas(test, plan, run_dir, stats, node_names)

    def score(num_scored: int) -> dict[str, float]:
        return accuracy.score_phase(
            log_dir,
            plan,
            num_samples=num_scored,
            prompts=samples.prompts,
            references=samples.references,
            model_path=model_path,
        )

    done = sample_log.read(run_dir.samples(test.name))
    judged = judge_phase(
        test,
        plan,
        run_dir,
        done,
        num_failed=stats.issued - stats.completed - stats.withdrawn,
        node_names=node_names,
        chosen_qps=chosen_qps,
        replicas=replicas,
        engines=engines,
        score=score,
        hopeless=measured.hopeless,
        losses=measured.losses,
    )
    compliance_files.write(
        *(log_dir, plan),
        test06=judged.test06,
        test09=judged.test09,
        test07=judged.scores if test.mode is Mode.TEST07 else None,
    )
    return PhaseRecord(
        name=test.name,
        loadgen=judged.log.values,
        loadgen_errors=tuple(error.message for error in judged.log.errors),
        verdict=judged.verdict,
        replicas=replicas,
        engines=engines,
        dispatcher=_dispatcher_stats(stats),
        accuracy=judged.scores,
        num_scored=judged.num_scored,
        start_unix_s=round(measured.start_unix_s, 3),
        duration_s=round(measured.duration_s, 3),
        nodes=work.of_nodes(replicas, done) if done else (),
        telemetry=_telemetry(run_dir, measured),
        test06=judged.test06,
        test09=judged.test09,
        issue_delay=_issue_delay(test.mode, plan, chosen_qps, done) if done else None,
        goodput=goodput.of(judged.log, done) if done else None,
        hopeless=measured.hopeless,
        losses=measured.losses,
        other_cpus=measured.other_cpus,
        survivors=losses.survivors(measured.losses, done, len(plan.replicas)),
        cost_per_million_tokens=cost.per_million_tokens(plan, test.mode, judged.log),
        file_sha256=hashes.of_folder(log_dir),
    )


def _issue_delay(
    mode: Mode, plan: Plan, chosen_qps: float | None, done: SampleLog
) -> IssueDelay | None:
    if mode is not Mode.PERFORMANCE or plan.scenario.loadgen != "Server":
        return None
    schedule = _core.schedule(
        model=plan.loadgen_name,
        scenario=plan.scenario.loadgen,
        user_conf=plan.user_conf(chosen_qps),
        num_samples=plan.dataset.num_samples,
    )
    return issue_delay.of([ns / 1e6 for ns in schedule.arrival_ns], done.issued_ms)


def interrupted(
    test: Test, plan: Plan, run_dir: RunDir, stats: _core.Stats, node_names: Sequence[str]
) -> InterruptedPhase:
    return InterruptedPhase(
        name=test.name,
        dispatcher=_dispatcher_stats(stats),
        replicas=_replicas(test, plan, run_dir, stats, node_names),
    )


def _replicas(
    test: Test, plan: Plan, run_dir: RunDir, stats: _core.Stats, node_names: Sequence[str]
) -> tuple[work.ReplicaWork, ...]:
    return work.of_replicas(plan, stats, node_names, work.lines_of(run_dir.progress, test.name))


def _telemetry(run_dir: RunDir, measured: Measured) -> tuple[NodeTelemetry, ...]:
    start_s, end_s = measured.start_unix_s, measured.start_unix_s + measured.duration_s
    summaries = (
        telemetry.summarize(path.stem, telemetry.read(path), start_s, end_s)
        for path in run_dir.telemetry_files()
    )
    return tuple(summary for summary in summaries if summary is not None)


def _dispatcher_stats(stats: _core.Stats) -> DispatcherStats:
    return DispatcherStats(
        elapsed_s=round(stats.elapsed_ns / 1e9, 3),
        issued=stats.issued,
        completed=stats.completed,
        failed=stats.failed,
        withdrawn=stats.withdrawn,
        prompt_tokens=stats.prompt_tokens,
        output_tokens=stats.output_tokens,
        ttft_ms=work.quantiles_of_ns(stats.ttft_ns),
        tpot_ms=work.quantiles_of_ns(stats.tpot_ns),
    )
