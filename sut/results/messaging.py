"""The labels of results that MLCommons has not reviewed, from MLPerf's results messaging
guidelines (mlcommons/policies)."""

from __future__ import annotations

from sut.plan.benchmark import Scenario
from sut.plan.plan import Plan
from sut.results.mllog import DetailLog

UNVERIFIED = "Result not verified by MLCommons Association."
COMPARED = (  # beside verified results
    "Unverified results have not been through an MLPerf review and may use measurement "
    "methodologies and/or workload implementations that are inconsistent with the MLPerf "
    "specification for verified results."
)
TRADEMARK = (
    "The MLPerf name and logo are registered and unregistered trademarks of MLCommons Association "
    "in the United States and other countries. All rights reserved. Unauthorized use strictly "
    "prohibited. See www.mlcommons.org for more information."
)


def loadgen(log: DetailLog) -> str:
    """``LoadGen 6.0.17``, by the log's version."""
    version = str(log.values.get("loadgen_version", "")).partition(" ")[0]
    return f"LoadGen {version or 'of unknown version'}"


def unverified_log(log: DetailLog) -> str:
    """The label of any LoadGen log. A log contains its data's name, not its benchmark's."""
    data = str(log.values.get("qsl_name", "")) or "unnamed data"
    return f"{loadgen(log)} on {data}, {log.scenario}: unverified. {UNVERIFIED}"


def unverified(plan: Plan, division: str = "", *, official: bool = True) -> str:
    """The label of a run. Only an official run uses MLPerf's name and has a division: pass False
    where it is not official for a reason that its plan does not have."""
    scenario = "Interactive" if plan.scenario is Scenario.INTERACTIVE else plan.scenario.loadgen
    whose = f"LoadGen with the seeds of MLPerf Inference {plan.round}"
    if plan.official and official:
        whose = f"MLPerf Inference {plan.round} {division.capitalize()}".rstrip()
    return f"{whose}, {plan.benchmark}, {scenario}: unverified. {UNVERIFIED}"
