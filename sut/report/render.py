"""The report of a run, from its record and the files beside it: the verdict, then the evidence."""

from __future__ import annotations

from collections.abc import Mapping

from sut.plan.plan import Mode
from sut.report import advice, nodes, page, phases, provenance
from sut.report.evidence import Evidence
from sut.report.markdown import bullets, inline, table
from sut.report.page import Figure, Section
from sut.report.summary import Message, latencies, reasons, title
from sut.results import messaging
from sut.results.measures import measure
from sut.results.record import PhaseRecord, Record
from sut.units import quantity

Figures = Mapping[str, tuple[Figure, ...]]


def render(record: Record, evidence: Mapping[str, Evidence] | None = None, note: str = "") -> str:
    return page.to_markdown(_sections(record, evidence or {}, {}, note))


def render_html(
    record: Record, evidence: Mapping[str, Evidence], figures: Figures, note: str = ""
) -> str:
    """The report as one HTML page. ``figures`` has a phase's by its name, the nodes' by
    ``telemetry``; ``note`` is printed at the top."""
    tone = {"VALID": "good", "INVALID": "bad"}.get(record.word, "neutral")
    return page.to_html(_sections(record, evidence, figures, note), tone)


def _sections(
    record: Record, evidence: Mapping[str, Evidence], figures: Figures, note: str
) -> list[Section]:
    done = {phase.name for phase in record.phases}
    if record.interrupted:
        done.add(record.interrupted.name)
    sections = [
        _heading(record, evidence, note),
        _in_short(record),
        _next(record, evidence),
        nodes.work(record.phases),
        *(phases.section(record.plan, p, figures.get(p.name, ())) for p in record.phases),
        phases.interrupted(record.interrupted, figures) if record.interrupted else None,
        *(
            phases.unfinished(name, evidence[name], figures.get(name, ()))
            for name in evidence
            if name not in done
        ),
        nodes.energy(record.phases, figures.get("telemetry", ())) if record.phases else None,
        nodes.preflight(record),
        *provenance.sections(record),
    ]
    return [section for section in sections if section is not None and section.text]


def _heading(record: Record, evidence: Mapping[str, Evidence], note: str) -> Section:
    plan = record.plan
    parts = []
    if record.failure:
        failure = record.failure
        causes = [f"replica {failure.replica}"] if failure.replica is not None else []
        causes += [f"node {failure.node}"] if failure.node is not None else []
        where = ", ".join([f"`{failure.code}`", *causes])
        ended = "was truncated" if record.status == "truncated" else "failed"
        message = Message.of(failure.message)
        parts.append(f"The run {ended} ({where}): {inline(message.first)}")
        parts += ["\n".join(f"    {line}" for line in message.log)] if message.log else []
        parts += [f"**Hint**: {inline(message.hint)}"] if message.hint else []
    if why := reasons(record.phases):
        parts.append(f"Why it is INVALID:\n\n{bullets(why)}")
    if not plan.official:
        parts.append(f"**Not official** because:\n\n{bullets(plan.not_official_because)}")
    parts.append(messaging.unverified(plan))
    parts += [f"Not read: {inline(e.problem)}" for e in evidence.values() if e.problem]
    parts += [f"**Incomplete report**: {inline(note)}"] if note else []
    return Section(title=f"{record.word}: {title(plan)}", text="\n\n".join(parts))


def _in_short(record: Record) -> Section | None:
    rows = [row for phase in record.phases for row in _key_figures(phase)]
    text = table(("", "measured (unverified)", "limit", "met"), rows)
    return Section(title="In short", text=text) if rows else None


def _key_figures(phase: PhaseRecord) -> list[tuple[str, str, str, str]]:
    if phase.accuracy is not None:
        return [
            (f"accuracy, {metric}", f"{value:,.10g}", *_limit_of(phase, f"accuracy_{metric}"))
            for metric, value in phase.accuracy.items()
        ]
    if phase.name != Mode.PERFORMANCE:
        met = "yes" if phase.verdict.verdict == "VALID" else "**no**"
        return [(phase.name, phase.verdict.verdict, "", met)]
    measures = measure(phase.loadgen)
    rows = [
        (f"{row.name}, p99", quantity(row.quantiles[2], "ms"), *_limit_of(phase, f"{code}_p99"))
        for row in latencies(phase, measures)
        for code in [row.name.lower()]
    ]
    rows += [
        ("output tokens", quantity(measures.tokens_per_s, "tokens/s"), "", ""),
        ("samples", quantity(measures.samples_per_s, "samples/s"), "", ""),
        ("duration", quantity(measures.duration_s, "s"), *_limit_of(phase, "min_duration")),
    ]
    if each := nodes.energy_per_token(phase):
        rows.append(("energy (not MLPerf Power)", each, "", ""))
    return rows


def _limit_of(phase: PhaseRecord, code: str) -> tuple[str, str]:
    """A rule's limit and whether it is met; empty without such a rule."""
    check = next((check for check in phase.verdict.checks if check.code == code), None)
    if check is None:
        return "", ""
    return quantity(check.limit, check.unit), "yes" if check.met else "**no**"


def _next(record: Record, evidence: Mapping[str, Evidence]) -> Section | None:
    tries = advice.of(record, evidence)
    return Section(title="What to try next", text=bullets(tries)) if tries else None
