"""What LoadGen's own mlperf.conf sets for MLPerf's benchmarks, where a plan leaves a setting out.

Only for showing it before a run: LoadGen applies the file itself. Units as in mlperf.conf: ms.
"""

from __future__ import annotations

import msgspec

from sut.plan.benchmark import ScenarioSettings
from sut.plan.plan import Plan

MIN_DURATION_MS = 600_000

# By LoadGen's model and scenario.
_SETTINGS = {
    ("llama3_1-8b", "Server"): ScenarioSettings(ttft_latency_ms=2000, tpot_latency_ms=100),
    ("llama3_1-8b-interactive", "Server"): ScenarioSettings(
        ttft_latency_ms=500, tpot_latency_ms=30
    ),
    ("llama3_1-8b", "Offline"): ScenarioSettings(min_query_count=13_368),
    ("llama3_1-8b-edge", "Offline"): ScenarioSettings(min_query_count=5_000),
}


def effective(plan: Plan) -> ScenarioSettings:
    """The plan's settings, completed by what is known of mlperf.conf."""
    known = _SETTINGS.get((plan.loadgen_name, plan.scenario.loadgen), ScenarioSettings())
    defaults = msgspec.structs.asdict(known) | {"min_duration_ms": MIN_DURATION_MS}
    given = msgspec.structs.asdict(plan.loadgen_settings)
    left_out = {key for key, value in given.items() if value in (None, "")}
    return msgspec.structs.replace(
        plan.loadgen_settings, **{key: defaults[key] for key in left_out}
    )
