"""Words that every output about a run uses."""

from __future__ import annotations

from sut.plan.plan import Mode, Plan
from sut.results.record import PhaseRecord
from sut.results.rules import Check
from sut.units import quantity


def title(plan: Plan) -> str:
    if plan.mode is Mode.PREFLIGHT:
        return f"preflight of {quantity(len(plan.nodes), 'nodes')} for {plan.benchmark}"
    replicas = quantity(len(plan.replicas), "replicas")
    return f"{plan.benchmark}, {plan.scenario.value}, {plan.preset.value} preset, {replicas}"


def because(phase: PhaseRecord, check: Check) -> str:
    return f"{phase.name}, {check.code}: {check.text}"
