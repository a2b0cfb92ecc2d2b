"""A model of LoadGen's ``TestSettings`` (``test_settings_internal.cc``): the settings in its log.

The keys are the log's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sut.plan import mlperf_conf

Settings = dict[str, Any]


class _Key(NamedTuple):
    """A setting of ``TestSettings``. ``scenario`` is the one LoadGen looks it up in; empty: the
    test's. ``scale`` converts a file's unit. ``of_mlperf``: no other file can set it."""

    name: str
    key: str
    kind: type
    default: Any = 0
    scenario: str = ""
    scale: float = 1
    of_mlperf: bool = False


_MS = 1_000_000
_KEYS = (
    _Key("qsl_rng_seed", "qsl_rng_seed", int, of_mlperf=True),
    _Key("sample_index_rng_seed", "sample_index_rng_seed", int, of_mlperf=True),
    _Key("schedule_rng_seed", "schedule_rng_seed", int, of_mlperf=True),
    _Key(
        "accuracy_log_probability",
        "accuracy_log_probability",
        float,
        0.0,
        scale=0.01,
        of_mlperf=True,
    ),
    _Key("use_token_latencies", "use_token_latencies", bool, False),
    _Key("server_ttft_latency", "ttft_latency", int, 100_000_000, "Server", _MS),
    _Key("server_tpot_latency", "tpot_latency", int, 100_000_000, "Server", _MS),
    _Key(
        "single_stream_target_latency_percentile",
        "target_latency_percentile",
        float,
        0.9,
        "SingleStream",
        0.01,
    ),
    _Key(
        "server_target_latency_percentile", "target_latency_percentile", float, 0.99, "Server", 0.01
    ),
    _Key("server_target_latency_ns", "target_latency", int, 100_000_000, "Server", _MS),
    _Key("performance_issue_unique", "performance_issue_unique", bool, False),
    _Key("performance_issue_same", "performance_issue_same", bool, False),
    _Key("performance_issue_same_index", "performance_issue_same_index", int),
    _Key("sample_concatenate_permutation", "sample_concatenate_permutation", bool, False),
    _Key("server_coalesce_queries", "coalesce_queries", bool, False, "Server"),
    _Key("server_max_async_queries", "max_async_queries", int, 0, "Server"),
    _Key("min_duration_ms", "min_duration", int, 10_000),
    _Key("max_duration_ms", "max_duration", int),
    _Key("min_query_count", "min_query_count", int, 100),
    _Key("max_query_count", "max_query_count", int),
    _Key("performance_sample_count_override", "performance_sample_count_override", int),
    _Key("accuracy_sample_count_override", "accuracy_sample_count_override", int),
    _Key(
        "single_stream_expected_latency_ns",
        "target_latency",
        float,
        1_000_000.0,
        "SingleStream",
        _MS,
    ),
    _Key("server_target_qps", "target_qps", float, 1.0, "Server"),
    _Key("offline_expected_qps", "target_qps", float, 1.0, "Offline"),
    _Key("print_timestamps", "print_timestamps", bool, False),
    _Key("accuracy_log_rng_seed", "accuracy_log_rng_seed", int),
    _Key("accuracy_log_sampling_target", "accuracy_log_sampling_target", int),
)
_OF_SCENARIO = {
    "SingleStream": (
        "single_stream_expected_latency_ns",
        "single_stream_target_latency_percentile",
    ),
    "Server": (
        "server_target_qps",
        "server_target_latency_ns",
        "server_target_latency_percentile",
        "server_coalesce_queries",
        "server_find_peak_qps_decimals_of_precision",
        "server_find_peak_qps_boundary_step_size",
        "server_max_async_queries",
        "server_num_issue_query_threads",
    ),
    "Offline": ("offline_expected_qps",),
}
_OF_ALL = (
    *("min_duration_ms", "max_duration_ms", "min_query_count", "max_query_count"),
    *("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed", "accuracy_log_rng_seed"),
    *("accuracy_log_probability", "accuracy_log_sampling_target", "print_timestamps"),
    *("performance_issue_unique", "performance_issue_same", "performance_issue_same_index"),
    *("performance_sample_count_override", "accuracy_sample_count_override"),
    "sample_concatenate_permutation",
)
_TOKEN_LIMITS = ("server_ttft_latency", "server_tpot_latency")
# Logged a second time, unchanged.
_COPIED = (
    *("max_duration_ms", "max_query_count", "qsl_rng_seed", "sample_index_rng_seed"),
    *("schedule_rng_seed", "accuracy_log_rng_seed", "accuracy_log_probability"),
    *("accuracy_log_sampling_target", "print_timestamps", "performance_issue_unique"),
    *("performance_issue_same", "performance_issue_same_index", "min_duration_ms"),
    "sample_concatenate_permutation",
)


def logged(
    model: str,
    scenario: str,
    num_samples: int,
    confs: Sequence[Mapping[str, str]],
    *,
    accuracy: bool,
) -> Settings:
    """The settings in LoadGen's log of a test with ``confs``: mlperf.conf, user.conf and
    audit.config, each over the one before it."""
    asked = _requested(model, scenario, confs)
    first = {
        "scenario": scenario,
        "test_mode": "AccuracyOnly" if accuracy else "PerformanceOnly",
    }
    requested = first | {name: asked[name] for name in (*_OF_SCENARIO[scenario], *_OF_ALL)}
    if asked["use_token_latencies"]:
        requested["use_token_latencies"] = True
        if scenario != "Offline":
            requested |= {name: asked[name] for name in _TOKEN_LIMITS}
    effective = first | _effective(asked, scenario, num_samples)
    return (
        {f"requested_{name}": value for name, value in requested.items()}
        | {f"effective_{name}": value for name, value in effective.items()}
        | {f"qsl_reported_{what}_count": num_samples for what in ("total", "performance")}
    )


def _requested(model: str, scenario: str, confs: Sequence[Mapping[str, str]]) -> Settings:
    asked: Settings = {each.name: each.default for each in _KEYS} | {
        "server_find_peak_qps_decimals_of_precision": 1,
        "server_find_peak_qps_boundary_step_size": 1.0,
        "server_num_issue_query_threads": 0,
    }
    for place, conf in enumerate(confs):
        for each in _KEYS:
            if each.of_mlperf and place > 0:
                continue
            if each.name in _TOKEN_LIMITS and not asked["use_token_latencies"]:
                continue
            text = mlperf_conf.find(conf, model, each.scenario or scenario, each.key)
            if text is not None:
                asked[each.name] = _converted(text, each)
    return asked


def _converted(text: str, each: _Key) -> Any:
    if each.kind is float:
        return float(text) * each.scale
    whole = re.match(r"\d+", text)  # as C's strtoull
    number = int(whole[0]) if whole else 0
    return number != 0 if each.kind is bool else number * int(each.scale)


def _effective(asked: Settings, scenario: str, num_samples: int) -> Settings:
    """What LoadGen derives from the requested settings."""
    duration_s = asked["min_duration_ms"] / 1000
    per_query, min_queries, duration_ms = 1, asked["min_query_count"], asked["min_duration_ms"]
    performance_count = asked["performance_sample_count_override"] or num_samples
    latency_ns, async_queries = 0, 1
    match scenario:
        case "SingleStream":
            qps = 1e9 / asked["single_stream_expected_latency_ns"]
            percentile = asked["single_stream_target_latency_percentile"]
            if asked["sample_concatenate_permutation"]:
                min_queries = max(min_queries, int(2.0 * duration_s * qps))
                min_queries += num_samples - min_queries % num_samples
        case "Server":
            qps, percentile = asked["server_target_qps"], asked["server_target_latency_percentile"]
            latency_ns = asked["server_target_latency_ns"]
            async_queries = asked["server_max_async_queries"]
        case _:
            qps, percentile = asked["offline_expected_qps"], 0.99
            per_query = max(min_queries, int(1.1 * duration_s * qps))
            if asked["performance_issue_unique"]:
                per_query = performance_count
            min_queries, duration_ms = 1, 0
    return {name: asked[name] for name in _COPIED} | {
        "samples_per_query": per_query,
        "target_qps": qps,
        "target_latency_ns": latency_ns,
        "target_latency_percentile": percentile,
        "max_async_queries": async_queries,
        "target_duration_ms": duration_ms,
        "min_query_count": min_queries,
        "min_sample_count": min_queries * per_query,
        "performance_sample_count": performance_count,
        "accuracy_sample_count": asked["accuracy_sample_count_override"] or num_samples,
    }
