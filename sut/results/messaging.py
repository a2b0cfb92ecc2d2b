"""What a number that MLCommons has not reviewed must be called: MLPerf's results messaging
guidelines (mlcommons/policies)."""

from __future__ import annotations

from sut.plan.benchmark import Scenario
from sut.plan.plan import Plan
from sut.results.mllog import DetailLog

UNVERIFIED = "Result not verified by MLCommons Association."
TRADEMARK = (
    "The MLPerf name and logo are registered and unregistered trademarks of MLCommons Association "
    "in the United States and other countries. All rights reserved. Unauthorized use strictly "
    "prohibited. See www.mlcommons.org for more information."
)


def unverified_log(log: DetailLog) -> str:
    """The label of the numbers in any LoadGen log. It names its data, not its benchmark."""
    version = str(log.values.get("loadgen_version", "")).partition(" ")[0] or "of unknown version"
    data = str(log.values.get("qsl_name", "")) or "unnamed data"
    return f"LoadGen {version} on {data}, {log.scenario}: unverified. {UNVERIFIED}"


def unverified(plan: Plan, division: str = "") -> str:
    """The label of a run's numbers: round, benchmark, scenario, and that they are unverified. Only
    those of an official run go by MLPerf's name, and belong to a division."""
    scenario = "Interactive" if plan.scenario is Scenario.INTERACTIVE else plan.scenario.loadgen
    whose = f"LoadGen with the seeds of MLPerf Inference {plan.round}"
    if plan.official:
        whose = f"MLPerf Inference {plan.round} {division.capitalize()}".rstrip()
    return f"{whose}, {plan.benchmark}, {scenario}: unverified. {UNVERIFIED}"
