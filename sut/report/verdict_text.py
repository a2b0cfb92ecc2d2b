"""A verdict as text for a terminal: every rule, and how to meet those that are not met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sut.plan.plan import Plan
from sut.report import published as in_print
from sut.report.table import table, to_text
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
) -> list[str]:
    """``verdict`` is on the test of ``log``, ``whole`` on it and on the ``others`` of its run.
    ``plan`` is None for another harness's log."""
    text = [
        f"{_word(whole)}  ({log.scenario}; {messaging.loadgen(log)}: {verdict.loadgen_validity})",
        "",
        *_table(verdict),
    ]
    for phase in others:
        text += ["", f"{phase.name}: {phase.verdict.verdict}", *_table(phase.verdict)]
    fixes = remedies.by_remedy((*whole.reasons, *whole.doubts))
    text += _section("How to fix it:", (f"{', '.join(fixes[fix])}: {fix}" for fix in fixes))
    estimate = verdict.qps_estimate
    if estimate and estimate.qps is not None and not any(estimate.text in fix for fix in fixes):
        text += _section("Highest load:", [estimate.text])
    text += _section("Not judged:", verdict.notes)
    because = engine_rules.not_official_because(engines)
    because = (*plan.not_official_because, *because) if plan else ()
    text += _section("Not official because:", because)
    if standing is not None:
        text += ["", *in_print.to_lines(standing, because)]
    if plan is None:
        return [*text, "", messaging.unverified_log(log)]
    return [*text, "", messaging.unverified(plan, official=not because)]


def _word(verdict: Verdict) -> str:
    match len(verdict.doubts):
        case 0:
            return verdict.verdict
        case 1:
            return f"{verdict.verdict}, with 1 doubt"
        case num:
            return f"{verdict.verdict}, with {num} doubts"


def _table(verdict: Verdict) -> list[str]:
    rows = [(_state(check, verdict), check.code, check.text) for check in verdict.checks]
    return [f"  {line}" for line in to_text(table((), rows)).splitlines()]


def _state(check: Check, verdict: Verdict) -> str:
    if check.met:
        return "met    "
    return "doubt  " if check in verdict.doubts else "NOT met"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    items = [f"  - {line}" for line in lines]
    return ["", title, *items] if items else []
