"""A verdict as text for a terminal: every rule, and how to meet those that are not met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sut import layout
from sut.plan.plan import Plan
from sut.report import published as in_print
from sut.results import engine_rules, messaging, remedies
from sut.results.engine_report import EngineReport
from sut.results.judge import Verdict
from sut.results.mllog import DetailLog
from sut.results.phase_record import PhaseRecord
from sut.results.published import Standing
from sut.results.rules import Check


def lines(
    log: DetailLog,
    plan: Plan | None,
    verdict: Verdict,
    whole: Verdict,
    others: Sequence[PhaseRecord],
    engines: Sequence[EngineReport],
    standing: Standing | None,
    width: int | None = None,
) -> list[str]:
    """``verdict`` is on the test of ``log``, ``whole`` on it and on the ``others`` of its run.
    ``plan`` is None for another harness's log."""
    head = f"{_word(whole)}  ({log.scenario}; {messaging.loadgen(log)}: {verdict.loadgen_validity})"
    text = [*layout.wrap(head, width, rest=layout.INDENT), "", *_table(verdict, width)]
    for phase in others:
        text += ["", f"{phase.name}: {phase.verdict.verdict}", *_table(phase.verdict, width)]
    fixes = remedies.by_remedy((*whole.reasons, *whole.doubts))
    text += _section("How to fix it:", (f"{', '.join(fixes[fix])}: {fix}" for fix in fixes), width)
    estimate = verdict.qps_estimate
    if estimate and estimate.qps is not None and not any(estimate.text in fix for fix in fixes):
        text += _section("Highest load:", [estimate.text], width)
    text += _section("Not judged:", verdict.notes, width)
    because = engine_rules.not_official_because(engines)
    because = (*plan.not_official_because, *because) if plan else ()
    text += _section("Not official because:", because, width)
    if standing is not None:
        text += ["", *in_print.to_lines(standing, because, width)]
    unverified = messaging.unverified_log(log)
    if plan is not None:
        unverified = messaging.unverified(plan, official=not because)
    return [*text, "", *layout.wrap(unverified, width)]


def _word(verdict: Verdict) -> str:
    match len(verdict.doubts):
        case 0:
            return verdict.verdict
        case 1:
            return f"{verdict.verdict}, with 1 doubt"
        case num:
            return f"{verdict.verdict}, with {num} doubts"


def _table(verdict: Verdict, width: int | None) -> list[str]:
    rows = [(_state(check, verdict), check.code, check.text) for check in verdict.checks]
    return layout.indented(layout.columns((), rows, (), layout.less(width, 2)), 2)


def _state(check: Check, verdict: Verdict) -> str:
    if check.met:
        return "met    "
    return "doubt  " if check in verdict.doubts else "NOT met"


def _section(title: str, lines: Iterable[str], width: int | None) -> list[str]:
    items = [part for line in lines for part in layout.wrap(line, width, "  - ", layout.INDENT)]
    return ["", title, *items] if items else []
