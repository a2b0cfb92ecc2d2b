"""What will come of a phase that still runs: pure functions of what LoadGen set itself and of
the last line of progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from sut.results.early_stopping import queries_needed
from sut.results.mllog import Scalar
from sut.results.progress import Line
from sut.units import against, number, quantity
from sut.values import Struct

IDLE_SHARE = 0.1  # of the samples done, after which a replica without any is worth a word


class Goal(Struct, frozen=True, kw_only=True):
    """What LoadGen asks of a phase. It logs this before the first sample."""

    scenario: str  # Server, Offline or SingleStream
    performance: bool  # an accuracy or a compliance test has no limits
    num_samples: int  # SingleStream: at least
    min_samples: int
    schedule_s: float  # Server: until the last of num_samples is issued
    min_duration_s: float
    percentile: float
    ttft_limit_ms: float | None
    tpot_limit_ms: float | None
    error: str | None  # the first that LoadGen has logged

    def without_limits(self) -> Goal:
        """The same for a test that is judged by its answers, not by its times."""
        return msgspec.structs.replace(
            self, performance=False, ttft_limit_ms=None, tpot_limit_ms=None
        )


class Projection(Struct, frozen=True, kw_only=True):
    """``verdict`` is None while nothing is known, and for a test without limits. ``certain``:
    nothing that may still come changes it. ``left_s`` is None before a first sample is done."""

    verdict: Literal["VALID", "INVALID"] | None
    certain: bool
    reasons: tuple[str, ...]
    num_samples: int
    left_s: float | None

    @property
    def words(self) -> str:
        match self.verdict, self.certain:
            case "INVALID", True:
                return "will be INVALID"
            case None, _:
                return ""
            case verdict, _:
                return f"{verdict} so far"


def goal_of(values: Mapping[str, Scalar], error: str | None = None) -> Goal | None:
    """The goal told by the beginning of a detail log; None while it is not all there."""
    try:
        scenario = str(values["effective_scenario"])
        timed = values["effective_test_mode"] == "PerformanceOnly"
        # Only a compliance test has LoadGen log some of its answers.
        performance = timed and not values.get("effective_accuracy_log_sampling_target")
        generated = _int(values, "generated_query_count")
        schedule_s = _int(values, "generated_query_duration") / 1e9
        most = _int(values, "effective_max_query_count") if timed else 0
        num_samples = min(generated, most or generated)
        per_query = _int(values, "generated_samples_per_query")
        least = _int(values, "effective_min_query_count")
        if scenario == "SingleStream" and performance:
            num_samples = min(num_samples, least)
        limited = scenario == "Server" and performance
        limited = limited and values.get("requested_use_token_latencies") is True
        ttft, tpot = (
            _int(values, f"requested_server_{which}_latency") / 1e6 if limited else None
            for which in ("ttft", "tpot")
        )
        return Goal(
            scenario=scenario,
            performance=performance,
            num_samples=num_samples * per_query,
            min_samples=least * per_query,
            schedule_s=schedule_s * num_samples / generated if scenario == "Server" else 0.0,
            min_duration_s=_int(values, "effective_min_duration_ms") / 1e3 if performance else 0.0,
            percentile=_float(values, "effective_target_latency_percentile"),
            ttft_limit_ms=ttft,
            tpot_limit_ms=tpot,
            error=error,
        )
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def project(goal: Goal, line: Line) -> Projection:
    """What the phase comes to if it goes on as it has."""
    total = _total(goal, line)
    certain, so_far = _certain(goal, line, total), _so_far(goal, line, total)
    known = goal.performance and (line.completed > 0 or bool(certain))
    verdict: Literal["VALID", "INVALID"] = "INVALID" if certain or so_far else "VALID"
    return Projection(
        verdict=verdict if known else None,
        certain=bool(certain),
        reasons=(*certain, *so_far) if known else (),
        num_samples=total,
        left_s=_left_s(goal, line, total),
    )


def _total(goal: Goal, line: Line) -> int:
    if goal.scenario != "SingleStream" or not goal.performance or not line.elapsed_s:
        return goal.num_samples
    return max(goal.num_samples, round(goal.min_duration_s * line.completed / line.elapsed_s))


def _left_s(goal: Goal, line: Line, total: int) -> float | None:
    if not line.completed or not line.elapsed_s:
        return None
    by_rate = max(0, total - line.completed) * line.elapsed_s / line.completed
    if goal.scenario == "Server" and line.queued == 0:  # the load is kept up with
        return max(0.0, goal.schedule_s - line.elapsed_s) if line.completed < total else 0.0
    return by_rate


def _certain(goal: Goal, line: Line, total: int) -> list[str]:
    """Why the phase will be INVALID whatever comes."""
    if not goal.performance:
        return []
    reasons = []
    if goal.error:
        reasons.append(f'LoadGen logged an error: "{goal.error}".')
    unit = "samples" if goal.scenario == "Offline" else "queries"
    if total < goal.min_samples:
        least = number(goal.min_samples)
        reasons.append(f"It will issue {quantity(total, unit)}; at least {least} needed.")
    if goal.scenario == "Server" and goal.schedule_s < goal.min_duration_s:
        length = against(goal.schedule_s, goal.min_duration_s, "s")
        least = quantity(goal.min_duration_s, "s")
        reasons.append(f"It will run about {length}; at least {least} needed.")
    if goal.scenario != "Offline":
        reasons += _early_stopping(goal, line, total)
    return reasons


def _early_stopping(goal: Goal, line: Line, total: int) -> list[str]:
    sure = f"to be 99% sure of p{100 * goal.percentile:g}"
    allowance = 1 if goal.scenario == "SingleStream" else 0
    if total < (needed := queries_needed(allowance, goal.percentile)):
        return [f"{quantity(total, 'queries')}: too few {sure}; {number(needed)} needed."]
    return [
        f"{number(over)} of {quantity(line.completed, 'queries')} over the {name} limit: {sure}, "
        f"{number(needed)} queries are needed, and it will issue {number(total)}."
        for name, over in (("TTFT", line.ttft_over), ("TPOT", line.tpot_over))
        if over and total < (needed := queries_needed(over, goal.percentile))
    ]


def _so_far(goal: Goal, line: Line, total: int) -> list[str]:
    """What makes the phase INVALID if it goes on as it has."""
    if not goal.performance or not line.completed:
        return []
    reasons = [
        f"{name} p99 is {against(p99, limit, 'ms')}; the limit is {quantity(limit, 'ms')}."
        for name, p99, limit in (
            ("TTFT", line.ttft_p99_ms, goal.ttft_limit_ms),
            ("TPOT", line.tpot_p99_ms, goal.tpot_limit_ms),
        )
        if p99 is not None and limit is not None and p99 > limit
    ]
    will_run_s = line.elapsed_s * total / line.completed
    if goal.scenario == "Offline" and will_run_s < goal.min_duration_s:
        length = against(will_run_s, goal.min_duration_s, "s")
        least = quantity(goal.min_duration_s, "s")
        reasons.append(f"At this rate it will run about {length}; at least {least} needed.")
    if line.completed > IDLE_SHARE * total:
        idle = [str(r.index) for r in line.replicas if not r.completed and not r.in_flight]
        if idle:
            reasons.append(f"No sample was done by replica {', '.join(idle)}.")
    return reasons


def _int(values: Mapping[str, Scalar], key: str) -> int:
    return int(_float(values, key))


def _float(values: Mapping[str, Scalar], key: str) -> float:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(key)
    return float(value)
