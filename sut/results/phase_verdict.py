"""The verdict on one phase, from its files: LoadGen's logs and ``samples.csv``.

The run judges a phase by it, and so does everyone who checks the run later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sut.plan.plan import Mode, Plan, Test
from sut.results import (
    answers,
    audit,
    compliance,
    compliance_length,
    engine_rules,
    judge,
    mllog,
    rules,
    settings,
)
from sut.results import (
    losses as lost,
)
from sut.results.budget import Hopeless
from sut.results.compliance_length import OutputLengths
from sut.results.engine_report import EngineReport
from sut.results.judge import Verdict
from sut.results.losses import ReplicaLoss
from sut.results.mllog import DetailLog
from sut.results.sample_log import SampleLog
from sut.results.work import ReplicaWork
from sut.rundir import RunDir

Score = Callable[[int], dict[str, float]]  # of the first N samples


class Judged(NamedTuple):
    """``scores`` and ``num_scored`` belong to an accuracy test and to TEST07, ``test06`` and
    ``test09`` to a compliance test."""

    log: DetailLog
    verdict: Verdict
    scores: dict[str, float] | None = None
    num_scored: int | None = None
    test06: compliance.Verification | None = None
    test09: OutputLengths | None = None


def judge_phase(
    test: Test,
    plan: Plan,
    run_dir: RunDir,
    samples: SampleLog | None,
    *,
    num_failed: int | None,
    node_names: Sequence[str],
    chosen_qps: float | None,
    replicas: Sequence[ReplicaWork],
    engines: Sequence[EngineReport],
    score: Score,
    hopeless: Hopeless | None = None,
    losses: Sequence[ReplicaLoss] = (),
) -> Judged:
    """The verdict. ``samples`` is None without ``samples.csv``; ``num_failed`` and ``replicas`` are
    the dispatcher's counts, ``engines`` what the engines report of themselves; ``node_names`` are
    those of the plan's nodes, in its order; ``hopeless`` is what the run found of its budget,
    ``losses`` the replicas that it lost.
    Raises RunError, InputError."""
    mode, log_dir = test.mode, run_dir.loadgen(test.name)
    if hopeless is not None and hopeless.ended:
        ended = _ended(plan, log_dir, samples, hopeless, num_failed)
        return ended._replace(verdict=_with_losses(ended.verdict, losses))
    log = mllog.read(log_dir)
    replica_samples = [replica.samples for replica in replicas]
    match mode:
        case Mode.COMPLIANCE:
            judged = _compliance(plan, log_dir, log, num_failed)
        case Mode.ACCURACY | Mode.TEST07:
            judged = _accuracy(plan, log_dir, log, num_failed, replica_samples, score)
        case _:
            verdict = judge.judge_performance(
                log,
                num_failed=num_failed,
                replica_samples=replica_samples,
                official=plan.official,
                plan=plan,
                samples=samples,
                answers=audit.read(log_dir)[0],
                chosen_qps=chosen_qps,
                hopeless=hopeless,
            )
            judged = Judged(log, verdict)
    checks = [] if mode is Mode.PERFORMANCE else settings.check(log, plan, mode, chosen_qps)
    idle = rules.idle_nodes(plan, node_names)
    verdict = _with_losses(judged.verdict, losses)
    for check in (*checks, *([idle] if idle else [])):
        verdict = judge.with_check(verdict, check)
    return judged._replace(verdict=engine_rules.judged(verdict, plan, engines, replicas))


def _with_losses(verdict: Verdict, losses: Sequence[ReplicaLoss]) -> Verdict:
    check = lost.check(losses)
    return verdict if check is None else judge.with_check(verdict, check)


def _ended(
    plan: Plan,
    log_dir: Path,
    samples: SampleLog | None,
    hopeless: Hopeless,
    num_failed: int | None,
) -> Judged:
    log = mllog.read_ended(log_dir)
    verdict = judge.judge_ended(
        log, hopeless, plan=plan, samples=samples, num_failed=num_failed, official=plan.official
    )
    return Judged(log, verdict)


def _accuracy(
    plan: Plan,
    log_dir: Path,
    log: DetailLog,
    num_failed: int | None,
    replica_samples: Sequence[int],
    score: Score,
) -> Judged:
    is_test07 = log.mode == "PerformanceOnly"
    num_scored = (
        plan.dataset.num_samples if is_test07 else log.count("effective_accuracy_sample_count")
    )
    scores = score(num_scored)
    verdict = judge.judge_accuracy(
        scores,
        plan.accuracy,
        log=log,
        num_scored=num_scored,
        num_samples=plan.dataset.num_samples,
        num_failed=num_failed,
        replica_samples=replica_samples,
        official=plan.official,
        answers=audit.read(log_dir)[0],
        max_tokens=plan.generation.max_tokens,
    )
    return Judged(log, verdict, scores, num_scored)


def _compliance(plan: Plan, log_dir: Path, log: DetailLog, num_failed: int | None) -> Judged:
    assert plan.compliance is not None, "a plan has this phase only where the test applies"
    found = answers.read(log_dir)
    bounds = plan.compliance.output_tokens
    if bounds is not None:
        test09 = compliance_length.measure(found)
        verdict = compliance_length.judge(
            *(test09, bounds, plan.dataset.num_samples, log),
            num_failed=num_failed,
            official=plan.official,
        )
        return Judged(log, verdict, test09=test09)
    test06 = compliance.verify(found, plan.scenario.loadgen, plan.compliance.eos_token_ids)
    verdict = compliance.judge(test06, log, num_failed=num_failed, official=plan.official)
    return Judged(log, verdict, test06=test06)
