"""What a performance test measured, in common units, from LoadGen's own values.

Three of LoadGen's keys are misnamed and not used:
``result_token_throughput`` divides by nanoseconds as if they were seconds (off by 1e9);
``result_overlatency_query_count``, with token latencies, counts against a limit of 0;
``early_stopping_latency_ss`` and ``_ms``, with token latencies, estimate TTFT.
"""

from __future__ import annotations

from collections.abc import Mapping

from sut.results.mllog import Scalar
from sut.values import Struct


class Quantiles(Struct, frozen=True, kw_only=True):
    """Milliseconds; None where LoadGen has none."""

    p50: float | None
    p90: float | None
    p99: float | None


class Measures(Struct, frozen=True, kw_only=True):
    """``duration_s`` is the time compared with min_duration: up to the last scheduled query
    (Server), the last issued one (SingleStream) or the last answer (Offline).

    ``tokens_per_s`` and ``samples_per_s`` are LoadGen's rates of completion, from its start to the
    last query's completion.
    """

    target_qps: float | None  # the load LoadGen was set to; None in SingleStream
    num_queries: int | None
    num_samples: int | None
    duration_s: float | None
    samples_per_s: float | None
    tokens_per_s: float | None
    latency_ms: Quantiles
    ttft_ms: Quantiles
    tpot_ms: Quantiles


def measure(values: Mapping[str, Scalar]) -> Measures:
    """The measures in LoadGen's ``values``; those a scenario does not have are None."""
    queries = _count(values, "result_query_count")
    samples, duration_s, rate, tokens = queries, None, None, "result_completed_tokens_per_second"
    match values.get("effective_scenario"):
        case "Server":
            rate = _number(values, "result_completed_samples_per_sec")
            duration_s = _span(queries, _number(values, "result_scheduled_samples_per_sec"))
        case "SingleStream":
            rate = _number(values, "result_qps_with_loadgen_overhead")
            duration_s = _span(queries, rate)
        case "Offline":
            # One query has all samples; its size is in the log only where it was generated.
            samples = _count(values, "generated_samples_per_query")
            rate = _number(values, "result_samples_per_second")
            latency_ms = _ms(values, "result_max_latency_ns")
            duration_s = None if latency_ms is None else latency_ms / 1e3
            tokens = "result_tokens_per_second"
    return Measures(
        target_qps=_target_qps(values),
        num_queries=queries,
        num_samples=samples,
        duration_s=duration_s,
        samples_per_s=rate,
        tokens_per_s=_number(values, tokens),
        latency_ms=_quantiles(values, LATENCY_KEY),
        ttft_ms=_quantiles(values, TTFT_KEY),
        tpot_ms=_quantiles(values, TPOT_KEY),
    )


def _target_qps(values: Mapping[str, Scalar]) -> float | None:
    """In SingleStream LoadGen derives it from the expected latency: it is not a load."""
    if values.get("effective_scenario") == "SingleStream":
        return None
    return _number(values, "effective_target_qps")


TTFT_KEY = "result_first_token_{}_percentile_latency_ns"
TPOT_KEY = "result_time_per_output_token_{}_percentile_ns"
LATENCY_KEY = "result_{}_percentile_latency_ns"


def percentile_key(template: str, percentile: float) -> str:
    """LoadGen's key for a percentile given as a fraction: ``0.99`` becomes ``99.00``."""
    return template.format(f"{100 * percentile:.2f}")


def misleading(values: Mapping[str, Scalar]) -> frozenset[str]:
    keys = {"result_token_throughput"}
    if values.get("requested_use_token_latencies") is True:
        keys |= {
            "result_overlatency_query_count",
            "early_stopping_latency_ss",
            "early_stopping_latency_ms",
        }
    return frozenset(keys)


def _quantiles(values: Mapping[str, Scalar], template: str) -> Quantiles:
    p50, p90, p99 = (_ms(values, percentile_key(template, p)) for p in (0.50, 0.90, 0.99))
    return Quantiles(p50=p50, p90=p90, p99=p99)


def _span(num_queries: int | None, per_s: float | None) -> float | None:
    """The time LoadGen divided by. It counts one query fewer than it issued."""
    return (num_queries - 1) / per_s if num_queries and per_s else None


def _ms(values: Mapping[str, Scalar], key: str) -> float | None:
    value = _number(values, key)
    return None if value is None else value / 1e6


def _number(values: Mapping[str, Scalar], key: str) -> float | None:
    value = values.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(values: Mapping[str, Scalar], key: str) -> int | None:
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
