"""LoadGen's ``user.conf``: ``model.Scenario.key = value`` lines."""

from __future__ import annotations

from collections.abc import Sequence

from sut.plan.benchmark import AUTO, ScenarioSettings


def target_qps(
    s: ScenarioSettings, sweep: Sequence[float], chosen_qps: float | None
) -> float | None:
    """LoadGen's ``target_qps``, queries/s: ``chosen_qps`` where the settings leave it to the run or
    to a sweep's tests. None: not known yet, or the scenario has none."""
    return chosen_qps if sweep or s.target_qps == AUTO else s.target_qps


def text(prefix: str, s: ScenarioSettings, target_qps: float | None, later: str) -> str:
    """The lines of these settings, with ``target_qps`` instead of theirs; ``later`` is a comment on
    where it comes from. ``prefix`` is LoadGen's model and scenario.

    Spaces around ``=`` are required: LoadGen silently ignores ``key=value``.
    """
    values: dict[str, float | int | bool | None] = {
        "target_qps": target_qps,
        "target_latency": s.target_latency_ms,
        "ttft_latency": s.ttft_latency_ms,
        "tpot_latency": s.tpot_latency_ms,
        "min_duration": s.min_duration_ms,
        "max_duration": s.max_duration_ms,
        "min_query_count": s.min_query_count,
        "max_query_count": s.max_query_count,
        "performance_sample_count_override": s.performance_sample_count,
        "accuracy_sample_count_override": s.accuracy_sample_count,
        "performance_issue_unique": s.performance_issue_unique,
        "sample_concatenate_permutation": s.sample_concatenate_permutation,
        "use_token_latencies": s.use_token_latencies,
    }
    lines = [f"# {prefix}.target_qps = {later}"] if later else []
    lines += [f"{prefix}.{key} = {number(float(v))}" for key, v in values.items() if v is not None]
    return "\n".join(lines) + "\n" if lines else ""


def number(value: float) -> str:
    """Integers without a decimal point, floats in full: LoadGen's parser reads them exactly."""
    value = int(value) if value.is_integer() else value
    return repr(value)
