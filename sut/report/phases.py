"""What each phase measured: its rules, its latencies or scores, its replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sut.plan.hostlist import compact
from sut.plan.plan import Mode, Plan
from sut.report.evidence import Evidence
from sut.report.latencies import latencies
from sut.report.markdown import Markup, bullets, code, percent, table
from sut.report.nodes import BY_THE_DISPATCHER
from sut.report.page import Figure, Section
from sut.results.measures import measure
from sut.results.phase_record import InterruptedPhase, PhaseRecord
from sut.results.rules import Check
from sut.results.work import ReplicaWork
from sut.units import against, number, quantity

NO_RESULT = "Figures of an unfinished phase are not a result."


def section(plan: Plan, phase: PhaseRecord, figures: tuple[Figure, ...]) -> Section:
    parts = [_rules(phase.verdict.checks)]
    if phase.losses:
        parts.append(_degraded(phase))
    if phase.verdict.notes:
        parts.append(f"Not judged:\n\n{bullets(phase.verdict.notes)}")
    if phase.accuracy is not None:
        parts.append(_scores(plan, phase, phase.accuracy))
    elif phase.test.mode == Mode.PERFORMANCE:  # the time of other phases is not a result
        parts += _measured(phase)
    parts.append(_replicas(phase.replicas))
    if figures:
        parts.append(BY_THE_DISPATCHER)
    return Section(
        title=f"{phase.name.capitalize()}: {phase.verdict.verdict}",
        text="\n\n".join(part for part in parts if part),
        figures=figures,
    )


def interrupted(phase: InterruptedPhase, figures: Mapping[str, tuple[Figure, ...]]) -> Section:
    """A phase that was interrupted, as far as it was measured."""
    stats = phase.dispatcher
    text = (
        f"Interrupted after {quantity(stats.elapsed_s, 's')}: {number(stats.issued)} samples "
        f"issued, {number(stats.completed)} completed, {number(stats.output_tokens)} output "
        f"tokens. {NO_RESULT}"
    )
    rows = [
        (name, number(q.p50), number(q.p90), number(q.p99))
        for name, q in (("TTFT", stats.ttft_ms), ("TPOT", stats.tpot_ms))
        if q is not None
    ]
    quantiles = table(("milliseconds (by the dispatcher)", "p50", "p90", "p99"), rows)
    return Section(
        title=f"{phase.name.capitalize()}: not finished",
        text="\n\n".join(part for part in (text, quantiles, _replicas(phase.replicas)) if part),
        figures=figures.get(phase.name, ()),
    )


def unfinished(name: str, evidence: Evidence, figures: tuple[Figure, ...]) -> Section:
    """A phase that is not in the record, from its files."""
    samples = evidence.samples
    if samples is None or len(samples) == 0:
        done = "No sample was completed"
    else:
        done = f"{quantity(len(samples), 'samples')} completed"
        done += f" in {quantity(samples.completed_ms[-1] / 1e3, 's')}"
    return Section(
        title=f"{name.capitalize()}: not finished",
        text=f"{done} before the run ended. {NO_RESULT}",
        figures=figures,
    )


def _rules(checks: Sequence[Check]) -> str:
    return table(
        ("rule", "met", "finding", "measured", "limit"),
        [
            (
                code(check.code),
                "yes" if check.met else Markup("**no**"),
                check.text,
                against(check.measured, check.limit, check.unit),
                quantity(check.limit, check.unit),
            )
            for check in checks
        ],
    )


def _measured(phase: PhaseRecord) -> list[str]:
    measures = measure(phase.loadgen)
    rows = [
        (row.name, *(number(q) for q in row.quantiles), number(row.limit))
        for row in latencies(phase, measures)
    ]
    latencies_ms = table(("milliseconds", "p50", "p90", "p99", "p99 limit"), rows)
    if phase.hopeless is not None and phase.hopeless.ended:
        return [latencies_ms, _ended(phase)]
    speed = (
        f"Speed: {quantity(measures.tokens_per_s, 'tokens/s')}, "
        f"{quantity(measures.samples_per_s, 'samples/s')}, over LoadGen's time from the start to "
        "the last completion."
    )
    return [latencies_ms, speed]


def _ended(phase: PhaseRecord) -> str:
    stats = phase.dispatcher
    if stats is None:
        return NO_RESULT
    return (
        f"Ended after {quantity(stats.elapsed_s, 's')}: {number(stats.issued)} samples issued, "
        f"{number(stats.completed)} completed, {number(stats.withdrawn)} withdrawn from the queue. "
        f"{NO_RESULT}"
    )


def _degraded(phase: PhaseRecord) -> str:
    lines = [loss.text for loss in phase.losses]
    lines += [phase.survivors.text] if phase.survivors else []
    return f"**Degraded**: replicas were lost during the phase.\n\n{bullets(lines)}"


def _scores(plan: Plan, phase: PhaseRecord, scores: dict[str, float]) -> str:
    reference = plan.accuracy.reference if plan.accuracy else {}
    gates = plan.accuracy.gates if plan.accuracy else {}
    rows = [
        (
            metric,
            f"{value:,.10g}",
            f"{reference[metric]:,.10g}" if metric in reference else "-",
            _gate_text(gates[metric].low, gates[metric].high) if metric in gates else "-",
        )
        for metric, value in scores.items()
    ]
    scored = table(("score", "this run", "reference", "gate"), rows)
    if phase.num_scored is None or phase.num_scored == plan.dataset.num_samples:
        return scored
    part = f"{number(phase.num_scored)} of {number(plan.dataset.num_samples)} samples"
    lowered = "; the gate on gen_len, a sum, is lowered in proportion" * ("gen_len" in scores)
    return f"{scored}\n\nScored on {part}{lowered}."


def _gate_text(low: float, high: float | None) -> str:
    return f"at least {low:,.10g}" if high is None else f"{low:,.10g} to {high:,.10g}"


def _replicas(replicas: Sequence[ReplicaWork]) -> str:
    return table(
        (
            *("replica", "node", "samples", "prompt tokens", "output tokens"),
            *("busy", "share of tokens", "KV cache, max"),
        ),
        [
            (
                str(work.index),
                compact(work.nodes or (work.node,)),
                number(work.samples),
                number(work.prompt_tokens),
                number(work.output_tokens),
                quantity(work.busy_s, "s"),
                percent(work.share),
                percent(work.kv_cache_usage_max),
            )
            for work in replicas
        ],
    )
