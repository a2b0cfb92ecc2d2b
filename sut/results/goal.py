"""What LoadGen requires of a test, from the beginning of its log. Pure functions."""

from __future__ import annotations

from sut.errors import InputError
from sut.results.mllog import DetailLog
from sut.values import Struct


class Goal(Struct, frozen=True, kw_only=True):
    """What LoadGen requires of a phase. It logs this before the first sample."""

    scenario: str  # Server, Offline or SingleStream
    performance: bool  # an accuracy or a compliance test has no limits
    num_samples: int  # SingleStream: at least
    min_samples: int
    schedule_s: float  # Server: until the last of num_samples is issued
    min_duration_s: float
    percentile: float
    ttft_limit_ms: float | None
    tpot_limit_ms: float | None
    error: str | None  # the first that LoadGen logged


def goal_of(log: DetailLog) -> Goal | None:
    """The goal of a test, from the beginning of its log; None before all of it is written."""
    try:
        timed = log.mode == "PerformanceOnly"
        # LoadGen logs some of the answers in a compliance test only.
        performance = timed and not log.values.get("effective_accuracy_log_sampling_target")
        generated = log.count("generated_query_count")
        schedule_s = log.count("generated_query_duration") / 1e9
        most = log.count("effective_max_query_count") if timed else 0
        num_samples = min(generated, most or generated)
        per_query = log.count("generated_samples_per_query")
        least = log.count("effective_min_query_count")
        if log.scenario == "SingleStream" and performance:
            num_samples = min(num_samples, least)
        limited = log.scenario == "Server" and performance and log.token_latencies
        ttft, tpot = (
            log.count(f"requested_server_{which}_latency") / 1e6 if limited else None
            for which in ("ttft", "tpot")
        )
        percentile = log.number("effective_target_latency_percentile")
        if percentile is None:
            return None
        return Goal(
            scenario=log.scenario,
            performance=performance,
            num_samples=num_samples * per_query,
            min_samples=least * per_query,
            schedule_s=schedule_s * num_samples / generated if log.scenario == "Server" else 0.0,
            min_duration_s=log.count("effective_min_duration_ms") / 1e3 if performance else 0.0,
            percentile=percentile,
            ttft_limit_ms=ttft,
            tpot_limit_ms=tpot,
            error=log.errors[0].message if log.errors else None,
        )
    except (InputError, ZeroDivisionError):
        return None
