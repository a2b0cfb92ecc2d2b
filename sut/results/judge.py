"""The verdict: VALID, or every rule that is not met, with what was measured.

Pure functions of LoadGen's log and of what the dispatcher counted. Stricter than
LoadGen and than the official checker: an error LoadGen logged, a failed sample, a replica
without work, token counts or a TPOT that can't be true, seeds of no round and what MLPerf
forbids an engine make a run INVALID. Nothing LoadGen calls INVALID is called VALID.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from sut.errors import InputError
from sut.plan.benchmark import Accuracy
from sut.plan.plan import Plan
from sut.results import audit, engine_rules, measures, remedies, rounds, rules
from sut.results.audit import Answers
from sut.results.mllog import DetailLog, Scalar
from sut.results.remedies import Facts
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.results.sustained import QpsEstimate
from sut.units import number
from sut.values import Struct

Validity = Literal["VALID", "INVALID"]


class Verdict(Struct, frozen=True, kw_only=True):
    """``reasons`` are the checks not met. ``loadgen_validity`` is LoadGen's own word, None
    for an accuracy test; ``official`` is None where the plan is not known; ``metrics``
    are LoadGen's values under its key names, without those that mislead. ``notes`` say what
    could not be judged; ``qps_estimate`` is of a Server test that has limits on tokens."""

    verdict: Validity
    loadgen_validity: Validity | None
    official: bool | None
    reasons: tuple[Check, ...]
    checks: tuple[Check, ...]
    metrics: dict[str, Scalar]
    notes: tuple[str, ...] = ()
    qps_estimate: QpsEstimate | None = None


def judge_performance(
    log: DetailLog,
    *,
    num_failed: int | None = None,
    replica_samples: Sequence[int] = (),
    official: bool | None = None,
    plan: Plan | None = None,
    samples: SampleLog | None = None,
    answers: Answers | None = None,
    asked_round: str | None = None,
    max_tokens: int | None = None,
) -> Verdict:
    """The verdict on a performance test.

    ``num_failed`` samples ended without an answer; ``replica_samples`` is what each replica
    completed. ``samples`` are the test's own, one by one, ``answers`` those LoadGen logged.
    ``asked_round`` (e.g. ``v6.1``) is the round whose seeds and settings it must have; without
    it, the plan's round or the log's gives the seeds. ``max_tokens`` is the most an answer may
    have, by default the plan's. Leave out what is not known. Raises InputError where the log is
    not one of a whole performance test.
    """
    if log.mode not in ("PerformanceOnly", "SubmissionRun"):
        raise InputError(
            f"{log.path}: a log of mode {log.mode}, not of a performance test: LoadGen gives it "
            "no validity. An accuracy test is judged by its scores, in the run's record.json."
        )
    validity = _validity(log)
    checks = rules.of_loadgen(log)
    if validity == "INVALID" and all(check.met for check in checks):
        text = "LoadGen calls the run INVALID, and its log does not say why."
        checks.append(rules.check("loadgen_validity", False, text))
    checks += rules.of_ours(log, num_failed, replica_samples)
    samples, notes = _all_of_the_test(samples, log)
    if max_tokens is None and plan is not None:
        max_tokens = plan.generation.max_tokens
    checks += _of_audit(log, answers, samples, max_tokens)
    of_round, unknown = _of_round(log, asked_round, plan)
    checks += of_round
    if plan is not None:
        checks += engine_rules.of_engine(plan)
    facts = Facts(log=log, samples=samples)
    estimate = remedies.estimate_qps(facts)
    checks = [remedies.explain(check, facts, estimate) for check in checks]
    verdict = _verdict(checks, validity, official, _metrics(log.values))
    return msgspec.structs.replace(verdict, notes=(*notes, *unknown), qps_estimate=estimate)


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
    answers: Answers | None = None,
    max_tokens: int | None = None,
) -> Verdict:
    """The verdict on an accuracy test: VALID when all of the data set was scored and every gate
    is passed. On a part of it gen_len, a sum, is held to that part of its gate.
    """
    fraction = num_scored / num_samples
    if accuracy is None:
        text = "The benchmark has no reference score, so its accuracy can't be judged."
        checks = [rules.check("accuracy_gate", False, text)]
    else:
        checks = [
            rules.gate(metric, scores.get(metric), gate, fraction if metric == "gen_len" else 1.0)
            for metric, gate in accuracy.gates.items()
        ]
    checks.append(rules.whole_data_set(num_scored, num_samples))
    if log is not None:
        checks += rules.of_ours(log, num_failed, replica_samples)
        counted = audit.of_answers(answers, max_tokens)
        checks += [counted] if counted else []
        facts = Facts(log=log)
        checks = [remedies.explain(check, facts, None) for check in checks]
    return _verdict(checks, None, official, dict(scores))


def overall(verdicts: Iterable[Verdict]) -> Validity:
    """VALID only when there is a verdict and every one is VALID."""
    words = {verdict.verdict for verdict in verdicts}
    return "VALID" if words == {"VALID"} else "INVALID"


def with_check(verdict: Verdict, check: Check) -> Verdict:
    """The verdict under one rule more."""
    return msgspec.structs.replace(
        verdict,
        verdict=verdict.verdict if check.met else "INVALID",
        checks=(*verdict.checks, check),
        reasons=verdict.reasons if check.met else (*verdict.reasons, check),
    )


def _all_of_the_test(
    samples: SampleLog | None, log: DetailLog
) -> tuple[SampleLog | None, list[str]]:
    """The samples, unless they are not those of the test; and what is to be said then."""
    num = measures.measure(log.values).num_samples
    if samples is None or len(samples) == num:
        return samples, []
    told = f"samples.csv holds {number(len(samples))} of {number(num)} samples"
    return None, [f"{told}, so it was not used."]


def _of_audit(
    log: DetailLog, answers: Answers | None, samples: SampleLog | None, max_tokens: int | None
) -> list[Check]:
    """What LoadGen was told of tokens, of a test that counts them."""
    if not log.token_latencies:
        return []
    found = (
        audit.of_token_counts(log, answers=answers, samples=samples, max_tokens=max_tokens),
        audit.of_tpot(log),
    )
    return [check for check in found if check is not None]


def _of_round(
    log: DetailLog, asked: str | None, plan: Plan | None
) -> tuple[list[Check], list[str]]:
    checks, notes = rounds.of_seeds(log, asked or (plan.round if plan else None))
    if asked is not None:
        settings, unknown = rounds.of_settings(log, asked, plan)
        checks, notes = checks + settings, notes + unknown
    return checks, notes


def _verdict(
    checks: list[Check],
    validity: Validity | None,
    official: bool | None,
    metrics: dict[str, Scalar],
) -> Verdict:
    reasons = tuple(check for check in checks if not check.met)
    return Verdict(
        verdict="INVALID" if reasons or validity == "INVALID" else "VALID",
        loadgen_validity=validity,
        official=official,
        reasons=reasons,
        checks=tuple(checks),
        metrics=metrics,
    )


def _metrics(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    kept = ("result_", "early_stopping_", "effective_", "requested_server_t", "generated_", "num_")
    dropped = measures.misleading(values)
    return {k: v for k, v in values.items() if k.startswith(kept) and k not in dropped}


def _validity(log: DetailLog) -> Validity:
    match log.text("result_validity"):
        case "VALID":
            return "VALID"
        case "INVALID":
            return "INVALID"
        case other:
            raise InputError(
                f"{log.path}: damaged: result_validity is {other!r}, neither VALID nor INVALID. "
                "Use the file as LoadGen wrote it."
            )
