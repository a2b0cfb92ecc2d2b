"""What came of a phase: LoadGen's logs and the dispatcher's count, judged and put on record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sut import _core
from sut.inputs import hashes
from sut.inputs.dataset import Samples
from sut.plan.plan import Mode, Plan
from sut.results import (
    accuracy,
    audit,
    compliance,
    judge,
    mllog,
    rules,
    sample_log,
    telemetry,
    work,
)
from sut.results.record import DispatcherStats, InterruptedPhase, PhaseRecord
from sut.results.telemetry import NodeTelemetry
from sut.rundir import RunDir, write_atomic


class Measured(NamedTuple):
    """A LoadGen test that is over: the dispatcher's count of it, and when it was."""

    stats: _core.Stats
    start_unix_s: float
    duration_s: float


def judge_phase(
    mode: Mode,
    plan: Plan,
    run_dir: RunDir,
    samples: Samples,
    measured: Measured,
    model_path: Path | None,
    node_names: Sequence[str],
) -> PhaseRecord:
    """Read LoadGen's logs of a phase and judge them. ``node_names`` are those of the plan's nodes,
    in its order. Raises RunError, InputError."""
    stats = measured.stats
    log = mllog.read(run_dir.loadgen(mode))
    num_failed = stats.issued - stats.completed
    replica_samples = [replica.completed for replica in stats.replicas]
    done = sample_log.read(run_dir.samples(mode))
    answers, _ = audit.read(run_dir.loadgen(mode))
    scores, num_scored, test06 = None, None, None
    if mode is Mode.COMPLIANCE:
        test06 = _verify(plan, run_dir.loadgen(mode))
        judged = compliance.judge(test06, log, num_failed=num_failed, official=plan.official)
    elif mode is Mode.ACCURACY:
        num_scored = log.count("effective_accuracy_sample_count")
        scores = accuracy.score_phase(
            run_dir.loadgen(mode),
            plan,
            num_samples=num_scored,
            prompts=samples.prompts,
            references=samples.references,
            model_path=model_path,
        )
        judged = judge.judge_accuracy(
            scores,
            plan.accuracy,
            log=log,
            num_scored=num_scored,
            num_samples=len(samples.prompts),
            num_failed=num_failed,
            replica_samples=replica_samples,
            official=plan.official,
            answers=answers,
            max_tokens=plan.generation.max_tokens,
        )
    else:
        judged = judge.judge_performance(
            log,
            num_failed=num_failed,
            replica_samples=replica_samples,
            official=plan.official,
            plan=plan,
            samples=done,
            answers=answers,
        )
    lines = work.lines_of(run_dir.progress, mode)
    replicas = work.of_replicas(plan, stats, node_names, lines)
    rule = rules.idle_nodes(plan, node_names)
    return PhaseRecord(
        name=mode,
        loadgen=log.values,
        loadgen_errors=tuple(error.message for error in log.errors),
        verdict=judge.with_check(judged, rule) if rule else judged,
        replicas=replicas,
        dispatcher=_dispatcher_stats(stats),
        accuracy=scores,
        num_scored=num_scored,
        start_unix_s=round(measured.start_unix_s, 3),
        duration_s=round(measured.duration_s, 3),
        nodes=work.of_nodes(replicas, done) if done else (),
        telemetry=_telemetry(run_dir, measured),
        test06=test06,
        file_sha256=hashes.of_folder(run_dir.loadgen(mode)),
    )


def interrupted(
    mode: Mode, plan: Plan, run_dir: RunDir, stats: _core.Stats, node_names: Sequence[str]
) -> InterruptedPhase:
    """What is to be kept of a phase that did not come to its end."""
    return InterruptedPhase(
        name=mode,
        dispatcher=_dispatcher_stats(stats),
        replicas=work.of_replicas(plan, stats, node_names, work.lines_of(run_dir.progress, mode)),
    )


def _verify(plan: Plan, log_dir: Path) -> compliance.Verification:
    """Hold a compliance test's answers to TEST06, and write down what comes out as MLCommons'
    script does."""
    assert plan.compliance is not None, "a plan has this phase only where the test applies"
    eos_token_ids = plan.compliance.eos_token_ids
    test06 = compliance.verify(compliance.read(log_dir), plan.scenario.loadgen, eos_token_ids)
    text = compliance.verify_accuracy_text(test06)
    write_atomic(log_dir / compliance.VERIFY_ACCURACY, text)
    return test06


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
        prompt_tokens=stats.prompt_tokens,
        output_tokens=stats.output_tokens,
        ttft_ms=work.quantiles_of_ns(stats.ttft_ns),
        tpot_ms=work.quantiles_of_ns(stats.tpot_ns),
    )
