"""Words that every output about a run uses."""

from __future__ import annotations

from sut.plan import Plan, Scenario
from sut.results.record import PhaseRecord, Record
from sut.results.rules import Check
from sut.results.units import quantity

UNVERIFIED = "Result not verified by MLCommons Association."


def verdict(record: Record) -> str:
    return record.verdict or record.status.upper()


def title(plan: Plan) -> str:
    replicas = quantity(len(plan.replicas), "replicas")
    return f"{plan.benchmark}, {plan.scenario.value}, {plan.preset.value} preset, {replicas}"


def because(phase: PhaseRecord, check: Check) -> str:
    return f"{phase.name}, {check.code}: {check.text}"


def unverified(plan: Plan) -> str:
    """What any number that was not submitted is to be called."""
    scenario = "Interactive" if plan.scenario is Scenario.INTERACTIVE else plan.scenario.loadgen
    whose = "MLPerf Inference" if plan.official else "LoadGen with the seeds of MLPerf Inference"
    return f"{whose} {plan.round}, {plan.benchmark}, {scenario}: unverified. {UNVERIFIED}"
