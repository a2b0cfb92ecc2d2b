"""The verdict: VALID, or every rule that is not met, with what was measured.

Pure functions of LoadGen's log and of what the dispatcher counted. Stricter than LoadGen and than
the official checker: an error LoadGen logged, a failed sample, a replica without work, implausible
token counts or TPOT, seeds of no round, and what MLPerf forbids an engine make a run INVALID.
Nothing LoadGen calls INVALID is called VALID. On another harness's log LoadGen's own rules decide;
the others are doubts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from sut.plan.benchmark import Accuracy
from sut.plan.plan import Mode, Plan
from sut.results import audit, load, measures, other_modes, remedies, rounds, rules, settings
from sut.results.audit import AnswerLengths
from sut.results.budget import Hopeless
from sut.results.early_stopping import queries_needed
from sut.results.load import QpsEstimate
from sut.results.mllog import DetailLog, Scalar
from sut.results.remedies import Facts
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.units import number
from sut.values import Struct

Validity = Literal["VALID", "INVALID"]


class Verdict(Struct, frozen=True, kw_only=True):
    """``reasons`` are the checks that are not met and make it INVALID. ``loadgen_validity`` is
    LoadGen's own, None for an accuracy test; ``official`` is None where the plan is unknown;
    ``metrics`` are LoadGen's values by its key names, without the misleading ones. ``notes`` list
    what could not be judged; ``qps_estimate`` belongs to a Server test with limits on tokens."""

    verdict: Validity
    loadgen_validity: Validity | None
    official: bool | None
    reasons: tuple[Check, ...]
    checks: tuple[Check, ...]
    metrics: dict[str, Scalar]
    notes: tuple[str, ...] = ()
    qps_estimate: QpsEstimate | None = None

    @property
    def doubts(self) -> tuple[Check, ...]:
        """The checks that are not met and do not decide: those of another harness's log."""
        return tuple(c for c in self.checks if not c.met and c not in self.reasons)


def judge_performance(
    log: DetailLog,
    *,
    num_failed: int | None = None,
    replica_samples: Sequence[int] = (),
    official: bool | None = None,
    plan: Plan | None = None,
    samples: SampleLog | None = None,
    answers: AnswerLengths | None = None,
    asked_round: str | None = None,
    max_tokens: int | None = None,
    foreign: bool = False,
    chosen_qps: float | None = None,
    hopeless: Hopeless | None = None,
) -> Verdict:
    """The verdict on a performance test. Leave out what is unknown.

    ``num_failed`` samples ended without an answer; ``replica_samples`` is what each replica
    completed; ``samples`` are the test's own, ``answers`` those LoadGen logged. ``asked_round``
    (e.g. ``v6.1``) is the round whose seeds and settings the test must have; without it, the seeds
    must be those of the plan's or the log's round. ``max_tokens`` is the limit of an answer, by
    default the plan's. ``chosen_qps`` is the load that the run chose, where the plan leaves it to
    the run; ``hopeless`` is what the run found of its budget. On a ``foreign`` log, another
    harness's, only LoadGen's own rules and those of ``asked_round`` and ``max_tokens`` decide.
    Raises InputError for a log that is not one of a whole performance test.
    """
    if log.mode not in ("PerformanceOnly", "SubmissionRun"):
        raise other_modes.no_verdict(log)
    validity = _validity(log)
    samples, incomplete = _if_complete(samples, log)
    asked_tokens = max_tokens is not None
    if max_tokens is None and plan is not None:
        max_tokens = plan.generation.max_tokens
    of_round, unknown = _of_round(log, asked_round, plan)
    decisive = _of_loadgen(log, validity)
    beyond = rules.beyond_loadgen(log, num_failed, replica_samples)
    audited = audit.of_log(log, answers=answers, samples=samples, max_tokens=max_tokens)
    (decisive if asked_tokens else beyond).extend(audited)
    (decisive if asked_round else beyond).extend(of_round)
    if plan is not None:
        beyond += settings.check(log, plan, Mode.PERFORMANCE, chosen_qps)
    facts = Facts(
        log=log,
        samples=samples,
        estimate=load.estimate_from(log, samples),
        scenario=plan.scenario if plan else None,
        hopeless=hopeless,
        preset=plan.preset if plan else None,
    )
    return verdict_of(
        remedies.explain((*decisive, *beyond), facts),
        doubted={check.code for check in beyond} if foreign else (),
        loadgen_validity=validity,
        official=official,
        metrics=_metrics(log.values),
        notes=(*incomplete, *unknown),
        qps_estimate=facts.estimate,
    )


def judge_ended(
    log: DetailLog,
    hopeless: Hopeless,
    *,
    plan: Plan,
    samples: SampleLog | None,
    num_failed: int | None,
    official: bool,
) -> Verdict:
    """The verdict on a performance test that was ended because it could not be VALID. LoadGen gave
    it no result; ``samples`` are those that completed."""
    needed = queries_needed(hopeless.num_over, rules.percentile_of(log))
    text = f"{hopeless.text} The run ended it (--stop-when-hopeless)."
    estimate = load.estimate_from(log, samples)
    early_stopping = Check(
        "early_stopping",
        False,
        text,
        hopeless.num_queries,
        needed,
        "queries",
        load.lower(log, samples, estimate, plan.scenario),
        hopeless.since_s,
    )
    facts = Facts(
        log=log, samples=samples, estimate=estimate, scenario=plan.scenario, preset=plan.preset
    )
    beyond = remedies.explain(rules.beyond_loadgen(log, num_failed, ()), facts)
    return verdict_of(
        [early_stopping, *beyond],
        official=official,
        metrics=_metrics(log.values),
        qps_estimate=estimate,
    )


def judge_accuracy(
    scores: Mapping[str, float],
    accuracy: Accuracy | None,
    *,
    log: DetailLog | None = None,
    num_scored: int,
    num_samples: int,
    num_failed: int | None = None,
    replica_samples: Sequence[int] = (),
    official: bool | None = None,
    answers: AnswerLengths | None = None,
    max_tokens: int | None = None,
) -> Verdict:
    """The verdict on an accuracy test: VALID when the whole data set was scored and every gate is
    passed. On a part of it gen_len, a sum, must pass that part of its gate.
    """
    fraction = num_scored / num_samples
    if accuracy is None:
        text = "The benchmark has no reference score, so its accuracy cannot be judged."
        checks = [Check("accuracy_gate", False, text)]
    else:
        checks = [
            rules.gate(metric, scores.get(metric), gate, fraction if metric == "gen_len" else 1.0)
            for metric, gate in accuracy.gates.items()
        ]
    checks.append(rules.whole_data_set(num_scored, num_samples))
    if log is not None:
        checks += rules.beyond_loadgen(log, num_failed, replica_samples)
        counted = audit.of_answers(answers, max_tokens)
        checks += [counted] if counted else []
        checks = remedies.explain(checks, Facts(log=log))
    return verdict_of(checks, official=official, metrics=dict(scores))


def verdict_of(
    checks: Sequence[Check],
    *,
    loadgen_validity: Validity | None = None,
    official: bool | None,
    metrics: dict[str, Scalar],
    notes: tuple[str, ...] = (),
    doubted: Collection[str] = (),
    qps_estimate: QpsEstimate | None = None,
) -> Verdict:
    """The verdict of ``checks``. Those whose code is ``doubted`` do not decide."""
    reasons = tuple(check for check in checks if not check.met and check.code not in doubted)
    return Verdict(
        verdict="INVALID" if reasons or loadgen_validity == "INVALID" else "VALID",
        loadgen_validity=loadgen_validity,
        official=official,
        reasons=reasons,
        checks=tuple(checks),
        metrics=metrics,
        notes=notes,
        qps_estimate=qps_estimate,
    )


def overall(verdicts: Iterable[Verdict]) -> Validity:
    """VALID only when there is a verdict and every one is VALID."""
    words = {verdict.verdict for verdict in verdicts}
    return "VALID" if words == {"VALID"} else "INVALID"


def with_check(verdict: Verdict, check: Check) -> Verdict:
    return msgspec.structs.replace(
        verdict,
        verdict=verdict.verdict if check.met else "INVALID",
        checks=(*verdict.checks, check),
        reasons=verdict.reasons if check.met else (*verdict.reasons, check),
    )


def _of_loadgen(log: DetailLog, validity: Validity) -> list[Check]:
    checks = rules.of_loadgen(log)
    if validity == "INVALID" and all(check.met for check in checks):
        text = "LoadGen reports INVALID; its log gives no reason."
        checks.append(Check("loadgen_validity", False, text))
    return checks


def _if_complete(samples: SampleLog | None, log: DetailLog) -> tuple[SampleLog | None, list[str]]:
    """The samples if they are all of the test's, otherwise None and a note."""
    num = measures.measure(log.values).num_samples
    if samples is None or len(samples) == num:
        return samples, []
    some = f"{number(len(samples))} of {number(num)} samples"
    return None, [f"samples.csv contains {some}, so it was not used."]


def _of_round(
    log: DetailLog, asked: str | None, plan: Plan | None
) -> tuple[list[Check], list[str]]:
    checks, notes = rounds.of_seeds(log, asked or (plan.round if plan else None))
    if asked is not None:
        found, unknown = rounds.of_settings(log, asked, plan)
        checks, notes = checks + found, notes + unknown
    return checks, notes


def _metrics(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    kept = ("result_", "early_stopping_", "effective_", "requested_server_t", "generated_", "num_")
    dropped = measures.misleading(values)
    return {k: v for k, v in values.items() if k.startswith(kept) and k not in dropped}


def _validity(log: DetailLog) -> Validity:
    match log.text("result_validity"):
        case "VALID" | "INVALID" as validity:
            return validity
        case _:
            raise log.wrong("result_validity", "VALID or INVALID")
