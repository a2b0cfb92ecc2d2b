"""The record of one phase: LoadGen's logs and the dispatcher's counts, with the verdict on them."""

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
    answers,
    audit,
    compliance,
    judge,
    mllog,
    rules,
    sample_log,
    telemetry,
    work,
)
from sut.results.judge import Verdict
from sut.results.mllog import DetailLog
from sut.results.record import DispatcherStats, InterruptedPhase, PhaseRecord
from sut.results.telemetry import NodeTelemetry
from sut.rundir import RunDir, write_atomic


class Measured(NamedTuple):
    """A finished LoadGen test: the dispatcher's counts and its time."""

    stats: _core.Stats
    start_unix_s: float
    duration_s: float

    @property
    def num_failed(self) -> int:
        return self.stats.issued - self.stats.completed

    @property
    def replica_samples(self) -> list[int]:
        return [replica.completed for replica in self.stats.replicas]


class _Judged(NamedTuple):
    verdict: Verdict
    scores: dict[str, float] | None = None
    num_scored: int | None = None
    test06: compliance.Verification | None = None


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
    log_dir = run_dir.loadgen(mode)
    log = mllog.read(log_dir)
    done = sample_log.read(run_dir.samples(mode))
    match mode:
        case Mode.COMPLIANCE:
            judged = _judge_compliance(plan, log_dir, log, measured)
        case Mode.ACCURACY:
            judged = _judge_accuracy(plan, log_dir, log, measured, samples, model_path)
        case _:
            verdict = judge.judge_performance(
                log,
                num_failed=measured.num_failed,
                replica_samples=measured.replica_samples,
                official=plan.official,
                plan=plan,
                samples=done,
                answers=audit.read(log_dir)[0],
            )
            judged = _Judged(verdict)
    replicas = _replicas(mode, plan, run_dir, measured.stats, node_names)
    rule = rules.idle_nodes(plan, node_names)
    return PhaseRecord(
        name=mode,
        loadgen=log.values,
        loadgen_errors=tuple(error.message for error in log.errors),
        verdict=judge.with_check(judged.verdict, rule) if rule else judged.verdict,
        replicas=replicas,
        dispatcher=_dispatcher_stats(measured.stats),
        accuracy=judged.scores,
        num_scored=judged.num_scored,
        start_unix_s=round(measured.start_unix_s, 3),
        duration_s=round(measured.duration_s, 3),
        nodes=work.of_nodes(replicas, done) if done else (),
        telemetry=_telemetry(run_dir, measured),
        test06=judged.test06,
        file_sha256=hashes.of_folder(log_dir),
    )


def interrupted(
    mode: Mode, plan: Plan, run_dir: RunDir, stats: _core.Stats, node_names: Sequence[str]
) -> InterruptedPhase:
    return InterruptedPhase(
        name=mode,
        dispatcher=_dispatcher_stats(stats),
        replicas=_replicas(mode, plan, run_dir, stats, node_names),
    )


def _judge_accuracy(
    plan: Plan,
    log_dir: Path,
    log: DetailLog,
    measured: Measured,
    samples: Samples,
    model_path: Path | None,
) -> _Judged:
    num_scored = log.count("effective_accuracy_sample_count")
    scores = accuracy.score_phase(
        log_dir,
        plan,
        num_samples=num_scored,
        prompts=samples.prompts,
        references=samples.references,
        model_path=model_path,
    )
    verdict = judge.judge_accuracy(
        scores,
        plan.accuracy,
        log=log,
        num_scored=num_scored,
        num_samples=len(samples.prompts),
        num_failed=measured.num_failed,
        replica_samples=measured.replica_samples,
        official=plan.official,
        answers=audit.read(log_dir)[0],
        max_tokens=plan.generation.max_tokens,
    )
    return _Judged(verdict, scores, num_scored)


def _judge_compliance(plan: Plan, log_dir: Path, log: DetailLog, measured: Measured) -> _Judged:
    """Run TEST06 and write its result as MLCommons' script does."""
    assert plan.compliance is not None, "a plan has this phase only where the test applies"
    eos_token_ids = plan.compliance.eos_token_ids
    test06 = compliance.verify(answers.read(log_dir), plan.scenario.loadgen, eos_token_ids)
    text = compliance.verify_accuracy_text(test06)
    write_atomic(log_dir / compliance.VERIFY_ACCURACY, text)
    verdict = compliance.judge(test06, log, num_failed=measured.num_failed, official=plan.official)
    return _Judged(verdict, test06=test06)


def _replicas(
    mode: Mode, plan: Plan, run_dir: RunDir, stats: _core.Stats, node_names: Sequence[str]
) -> tuple[work.ReplicaWork, ...]:
    return work.of_replicas(plan, stats, node_names, work.lines_of(run_dir.progress, mode))


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
