"""The report of a run, from its record and the files beside it: the verdict, then the evidence."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from sut.plan.plan import Mode
from sut.report import (
    advice,
    nodes,
    offered,
    overhead,
    page,
    phases,
    provenance,
    published,
    repeats,
    settings,
    sweep,
    tuning,
)
from sut.report.evidence import Evidence
from sut.report.latencies import latencies
from sut.report.markdown import block, bullets, code, inline
from sut.report.page import Card, Figure, Section
from sut.report.summary import PER_MILLION, Message, reasons, title
from sut.results import messaging
from sut.results.measures import measure
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record
from sut.units import exact, number, quantity

Figures = Mapping[str, tuple[Figure, ...]]
MEASURED = "measured (unverified)"


def render(record: Record, folder: str, evidence: Mapping[str, Evidence], note: str = "") -> str:
    """The report as Markdown. ``folder`` is the run's, for the commands in it."""
    return page.to_markdown(_sections(record, folder, evidence, {}, note))


def render_html(
    record: Record,
    folder: str,
    evidence: Mapping[str, Evidence],
    figures: Figures,
    note: str = "",
) -> str:
    """The report as one HTML page. ``figures`` has a phase's by its name, the nodes' by
    ``telemetry``; ``note`` is printed at the top."""
    tone = {"VALID": "good", "INVALID": "bad"}.get(record.word, "neutral")
    return page.to_html(_sections(record, folder, evidence, figures, note), tone)


def _sections(
    record: Record, folder: str, evidence: Mapping[str, Evidence], figures: Figures, note: str
) -> list[Section]:
    again = f"python -m sut.submit --again {shlex.quote(folder)}"
    done = {phase.name for phase in record.phases}
    if record.interrupted:
        done.add(record.interrupted.name)
    sections = [
        _heading(record, evidence, note),
        _in_short(record),
        repeats.section(record),
        sweep.section(record, figures.get("sweep", ())),
        _next(record, evidence, again),
        published.section(record),
        settings.section(record),
        offered.section(record.load) if record.load and not record.tuning else None,
        tuning.section(record.tuning) if record.tuning else None,
        nodes.work(record.phases),
        *(phases.section(record.plan, p, figures.get(p.name, ())) for p in record.phases),
        phases.interrupted(record.interrupted, figures) if record.interrupted else None,
        *(
            phases.unfinished(name, evidence[name], figures.get(name, ()))
            for name in evidence
            if name not in done
        ),
        overhead.section(record),
        nodes.energy(record.phases, figures.get("telemetry", ())) if record.phases else None,
        nodes.preflight(record),
        *provenance.sections(record, again, f"python -m sut.verify {shlex.quote(folder)}"),
    ]
    return [section for section in sections if section and (section.text or section.cards)]


def _heading(record: Record, evidence: Mapping[str, Evidence], note: str) -> Section:
    plan = record.plan
    parts = []
    if record.failure:
        failure = record.failure
        causes = [f"replica {failure.replica}"] if failure.replica is not None else []
        causes += [f"node {failure.node}"] if failure.node is not None else []
        where = ", ".join([code(failure.code), *map(inline, causes)])
        ended = "was truncated" if record.status == "truncated" else "failed"
        message = Message.of(failure.message)
        parts.append(f"The run {ended} ({where}): {inline(message.first)}")
        parts += [block("\n".join(message.log))] if message.log else []
        parts += [f"**Hint**: {inline(message.hint)}"] if message.hint else []
    if why := reasons(record.phases):
        parts.append(f"Why it is INVALID:\n\n{bullets(why)}")
    if because := record.not_official_because:
        parts.append(f"**Not official** because:\n\n{bullets(because)}")
    parts.append(inline(messaging.unverified(plan, official=not because)))
    parts += [f"Not read: {inline(e.problem)}" for e in evidence.values() if e.problem]
    # Of the report itself, which may have been written again, see the note.
    while_running = [each for each in record.auxiliary_failures if each.at_s is not None]
    parts += [f"**Warning**: {inline(each.text)}" for each in while_running]
    parts += [f"**Incomplete report**: {inline(note)}"] if note else []
    return Section(title=f"{record.headline}: {title(plan)}", text="\n\n".join(parts))


def _in_short(record: Record) -> Section | None:
    found = sweep.loads(record)
    best = sweep.highest_valid(found)
    shown = [phase for phase in record.phases if phase.test.place == 1]
    cards: tuple[Card, ...] = ()
    if found:
        qps, unit = (exact(best.target_qps), "queries/s") if best else ("none", "")
        cards = (Card(label="highest VALID load of the sweep", value=qps, unit=unit),)
        shown = best.phases[:1] if best else []
    cards += tuple(card for phase in shown for card in _cards(phase))
    return Section(title="In short", cards=cards, measured=MEASURED) if cards else None


def _cards(phase: PhaseRecord) -> list[Card]:
    if phase.accuracy is not None:
        return [
            _card(phase, f"accuracy, {metric}", f"{value:,.10g}", "", f"accuracy_{metric}")
            for metric, value in phase.accuracy.items()
        ]
    if phase.test.mode != Mode.PERFORMANCE:
        word = phase.verdict.verdict
        return [Card(label=phase.name, value=word, met=word == "VALID")]
    measures = measure(phase.loadgen)
    cards = [
        _card(phase, f"{row.name}, p99", number(row.quantiles[2]), "ms", f"{row.name.lower()}_p99")
        for row in latencies(phase, measures)
    ]
    if phase.hopeless is not None and phase.hopeless.ended:
        return cards  # LoadGen gave no rates
    cards += [
        _card(phase, "output tokens", number(measures.tokens_per_s), "tokens/s"),
        _card(phase, "samples", number(measures.samples_per_s), "samples/s"),
        _card(phase, "duration", number(measures.duration_s), "s", "min_duration"),
    ]
    if phase.cost_per_million_tokens is not None:
        cost = number(phase.cost_per_million_tokens)
        cards.append(Card(label="cost", value=cost, unit=PER_MILLION))
    if each := nodes.energy_per_token(phase):
        value, _, unit = each.partition(" ")
        cards.append(Card(label="energy (not MLPerf Power)", value=value, unit=unit))
    return cards


def _card(phase: PhaseRecord, label: str, value: str, unit: str, code: str = "") -> Card:
    """A figure with the limit of the rule ``code``, if the phase has this rule."""
    check = next((check for check in phase.verdict.checks if check.code == code), None)
    limit = "" if check is None else quantity(check.limit, check.unit)
    met = None if check is None else check.met
    return Card(label=label, value=value, unit=unit, limit=limit, met=met)


def _next(record: Record, evidence: Mapping[str, Evidence], again: str) -> Section | None:
    tries = advice.of(record, evidence, again)
    return Section(title="What to try next", text=bullets(tries)) if tries else None
