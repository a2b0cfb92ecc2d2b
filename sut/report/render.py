"""The report of a run: the verdict first, then what it stands on.

Made from its record and, where they are at hand, from the files beside it. ``report.md`` is text;
``report.html`` is the same with figures, in one file that needs no network.
"""

from __future__ import annotations

from collections.abc import Mapping

from sut.plan.plan import Mode
from sut.report import advice, energy, page, phases, preflight, provenance, words
from sut.report.evidence import Evidence
from sut.report.latencies import latencies
from sut.report.markdown import bullets, inline, table
from sut.report.page import Figure, Section
from sut.report.terminal import summary
from sut.results import messaging
from sut.results.measures import measure
from sut.results.record import PhaseRecord, Record
from sut.units import quantity

__all__ = ["render", "render_html", "summary"]

Figures = Mapping[str, tuple[Figure, ...]]


def render(record: Record, evidence: Mapping[str, Evidence] | None = None) -> str:
    """The report in Markdown."""
    return page.to_markdown(_sections(record, evidence or {}, {}))


def render_html(
    record: Record, evidence: Mapping[str, Evidence], figures: Figures, note: str = ""
) -> str:
    """The report as one HTML page. ``figures`` are those of each phase by its name, and under
    ``telemetry`` the nodes'; ``note`` is said at its top."""
    sections = _sections(record, evidence, figures)
    if note:
        first = sections[0]
        sections[0] = Section(title=first.title, text=f"{first.text}\n\n{inline(note)}")
    tone = {"VALID": "good", "INVALID": "bad"}.get(record.word, "neutral")
    return page.to_html(sections, tone)


def _sections(record: Record, evidence: Mapping[str, Evidence], figures: Figures) -> list[Section]:
    done = {phase.name for phase in record.phases}
    if record.interrupted:
        done.add(record.interrupted.name)
    sections = [
        _heading(record, evidence),
        _in_short(record),
        _next(record, evidence),
        phases.nodes(record.phases),
        *(phases.section(record.plan, p, figures.get(p.name, ())) for p in record.phases),
        phases.interrupted(record.interrupted, figures) if record.interrupted else None,
        *(
            phases.unfinished(name, evidence[name], figures.get(name, ()))
            for name in evidence
            if name not in done
        ),
        energy.section(record.phases, figures.get("telemetry", ())) if record.phases else None,
        preflight.section(record),
        *provenance.sections(record),
    ]
    return [section for section in sections if section is not None and section.text]


def _heading(record: Record, evidence: Mapping[str, Evidence]) -> Section:
    plan = record.plan
    parts = []
    if record.failure:
        failure = record.failure
        blamed = [f"replica {failure.replica}"] if failure.replica is not None else []
        blamed += [f"node {failure.node}"] if failure.node is not None else []
        who = f" ({', '.join(blamed)})" if blamed else ""
        ended = "was truncated" if record.status == "truncated" else "failed"
        parts.append(f"The run {ended}{who}, `{failure.code}`: {inline(failure.message)}")
    reasons = [words.because(p, reason) for p in record.phases for reason in p.verdict.reasons]
    if reasons:
        parts.append(f"Why it is INVALID:\n\n{bullets(reasons)}")
    if not plan.official:
        parts.append(f"**Not official** because:\n\n{bullets(plan.not_official_because)}")
    parts.append(messaging.unverified(plan))
    parts += [f"Not read: {inline(e.problem)}" for e in evidence.values() if e.problem]
    title = f"{record.word}: {words.title(plan)}"
    return Section(title=title, text="\n\n".join(parts))


def _in_short(record: Record) -> Section | None:
    rows = [row for phase in record.phases for row in _key_figures(phase)]
    text = table(("", "measured (unverified)", "limit", "met"), rows)
    return Section(title="In short", text=text) if rows else None


def _key_figures(phase: PhaseRecord) -> list[tuple[str, str, str, str]]:
    if phase.accuracy is not None:
        return [
            (f"accuracy, {metric}", f"{value:,.10g}", *_held_to(phase, f"accuracy_{metric}"))
            for metric, value in phase.accuracy.items()
        ]
    if phase.name != Mode.PERFORMANCE:
        met = "yes" if phase.verdict.verdict == "VALID" else "**no**"
        return [(phase.name, phase.verdict.verdict, "", met)]
    measures = measure(phase.loadgen)
    rows = [
        (f"{row.name}, p99", quantity(row.quantiles[2], "ms"), *_held_to(phase, f"{code}_p99"))
        for row in latencies(phase, measures)
        for code in [row.name.lower()]
    ]
    rows += [
        ("output tokens", quantity(measures.tokens_per_s, "tokens/s"), "", ""),
        ("samples", quantity(measures.samples_per_s, "samples/s"), "", ""),
        ("measured for", quantity(measures.duration_s, "s"), *_held_to(phase, "min_duration")),
    ]
    if each := energy.per_token(phase):
        rows.append(("energy (not MLPerf Power)", each, "", ""))
    return rows


def _held_to(phase: PhaseRecord, code: str) -> tuple[str, str]:
    """The limit of a rule and whether it is met; empty where there is no such rule."""
    check = next((check for check in phase.verdict.checks if check.code == code), None)
    if check is None:
        return "", ""
    return quantity(check.limit, check.unit), "yes" if check.met else "**no**"


def _next(record: Record, evidence: Mapping[str, Evidence]) -> Section | None:
    tries = advice.of(record, evidence)
    return Section(title="What to try next", text=bullets(tries)) if tries else None
