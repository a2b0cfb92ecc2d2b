"""What each phase measured: its rules, latencies or scores, nodes and replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sut.plan.plan import Mode, Plan
from sut.report.evidence import Evidence
from sut.report.latencies import latencies
from sut.report.markdown import bullets, table
from sut.report.page import Figure, Section
from sut.results.measures import measure
from sut.results.record import InterruptedPhase, PhaseRecord
from sut.results.rules import Check
from sut.results.telemetry import NodeTelemetry
from sut.results.work import NodeWork, Quantiles, ReplicaWork
from sut.units import against, number, quantity

BY_THE_DISPATCHER = (
    "Times are the dispatcher's, from when LoadGen handed a sample over; LoadGen's own, which "
    "decide, count from when it was scheduled."
)


def section(plan: Plan, phase: PhaseRecord, figures: tuple[Figure, ...]) -> Section:
    parts = [_rules(phase.verdict.checks)]
    if phase.verdict.notes:
        parts.append(f"Not judged:\n\n{bullets(phase.verdict.notes)}")
    if phase.accuracy is not None:
        parts.append(_scores(plan, phase, phase.accuracy))
    elif phase.name == Mode.PERFORMANCE:  # no other's time is a result
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
    """A phase that was cut off, as far as it was measured."""
    stats = phase.dispatcher
    text = (
        f"It was cut off after {quantity(stats.elapsed_s, 's')}, with "
        f"{quantity(stats.completed, 'samples')} done of {number(stats.issued)} issued and "
        f"{number(stats.output_tokens)} tokens out. What was measured until then is no result."
    )
    rows = [
        (name, number(q.p50), number(q.p90), number(q.p99))
        for name, q in (("TTFT", stats.ttft_ms), ("TPOT", stats.tpot_ms))
        if q is not None
    ]
    latencies = table(("milliseconds (by the dispatcher)", "p50", "p90", "p99"), rows)
    return Section(
        title=f"{phase.name.capitalize()}: not finished",
        text="\n\n".join(part for part in (text, latencies, _replicas(phase.replicas)) if part),
        figures=figures.get(phase.name, ()),
    )


def unfinished(name: str, evidence: Evidence, figures: tuple[Figure, ...]) -> Section:
    """A phase that ended without a word: what its files tell."""
    samples = evidence.samples
    if samples is None or len(samples) == 0:
        done = "No sample was completed"
    else:
        done = f"{quantity(len(samples), 'samples')} were completed"
        done += f" in {quantity(samples.completed_ms[-1] / 1e3, 's')}"
    return Section(
        title=f"{name.capitalize()}: not finished",
        text=f"{done} before the run ended. What was measured is no result.",
        figures=figures,
    )


def nodes(phases: Sequence[PhaseRecord]) -> Section | None:
    """What each node did, in the performance phase where there is one."""
    known = [phase for phase in phases if phase.nodes]
    phase = next((p for p in known if p.accuracy is None), known[0] if known else None)
    if phase is None:
        return None
    rows = [node_cells(work, phase.telemetry) for work in phase.nodes]
    text = (
        f"In the {phase.name} phase. tokens/s are output tokens over the time from the first "
        "sample issued to the last one completed, the same for every node. "
        f"{BY_THE_DISPATCHER}"
    )
    return Section(title="Nodes", text=f"{table(node_columns(), rows)}\n\n{text}")


def node_columns() -> tuple[str, ...]:
    """The head of a table of :func:`node_cells`."""
    return (
        *("node", "replicas", "samples", "tokens/s"),
        *("TTFT p50, ms", "TTFT p99, ms", "TPOT p50, ms", "TPOT p99, ms"),
        *("KV cache, most", "GPU memory, most"),
    )


def node_cells(work: NodeWork, telemetry: Sequence[NodeTelemetry]) -> tuple[str, ...]:
    return (
        work.node,
        str(work.replicas),
        number(work.samples),
        number(work.tokens_per_s),
        *_p50_p99(work.ttft_ms),
        *_p50_p99(work.tpot_ms),
        percent(work.kv_cache_usage_max),
        _gpu_memory(work, telemetry),
    )


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _gpu_memory(work: NodeWork, telemetry: Sequence[NodeTelemetry]) -> str:
    used = [
        quantity(gpu.memory_used_mib_max / 1024, "GiB")
        for node in telemetry
        if node.node in work.node.split("+")
        for gpu in node.gpus
        if gpu.memory_used_mib_max is not None
    ]
    return ", ".join(used) or "-"


def _p50_p99(quantiles: Quantiles | None) -> tuple[str, str]:
    return ("-", "-") if quantiles is None else (number(quantiles.p50), number(quantiles.p99))


def _rules(checks: Sequence[Check]) -> str:
    return table(
        ("rule", "met", "", "measured", "limit"),
        [
            (
                f"`{check.code}`",
                "yes" if check.met else "**no**",
                check.text,
                measured_cell(check),
                quantity(check.limit, check.unit),
            )
            for check in checks
        ],
    )


def measured_cell(check: Check) -> str:
    if check.limit is None:
        return quantity(check.measured, check.unit)
    return against(check.measured, check.limit, check.unit)


def _measured(phase: PhaseRecord) -> list[str]:
    measures = measure(phase.loadgen)
    rows = [
        (row.name, *(number(q) for q in row.quantiles), number(row.limit))
        for row in latencies(phase, measures)
    ]
    speed = (
        f"{quantity(measures.tokens_per_s, 'tokens/s')}, "
        f"{quantity(measures.samples_per_s, 'samples/s')}: what was completed, over LoadGen's "
        "time from the start to the last query's completion."
    )
    return [table(("milliseconds", "p50", "p90", "p99", "p99 limit"), rows), speed]


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
    lowered = "; the gate on gen_len, a sum, was lowered in proportion" * ("gen_len" in scores)
    return f"{scored}\n\nScored on {part}{lowered}."


def _gate_text(low: float, high: float | None) -> str:
    return f"at least {low:,.10g}" if high is None else f"{low:,.10g} to {high:,.10g}"


def _replicas(replicas: Sequence[ReplicaWork]) -> str:
    return table(
        (
            *("replica", "node", "samples", "prompt tokens", "output tokens"),
            *("busy", "share", "KV cache, most"),
        ),
        [
            (
                str(work.index),
                ", ".join(work.nodes or (work.node,)),
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
