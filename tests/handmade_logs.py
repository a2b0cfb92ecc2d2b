"""Handmade detail logs, in LoadGen's formats from round v5.0 to v6.1.

A Server test of 20,000 queries that every round accepts; a test changes what it breaks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sut.results import mllog
from sut.results.log_lines import PREFIX

Value = bool | int | float | str

SEEDS = {
    "v5.0": (6023615788873153749, 15036839855038426416, 9933818062894767841),
    "v5.1": (1780908523862526354, 14771362308971278857, 18209322760996052031),
    "v6.0": (2465351861681999779, 14276810075590677512, 3936089224930324775),
    "v6.1": (2085463073848966840, 2747215439041700203, 16159082839903944936),
}
VERSIONS = {"v5.0": "5.0.10", "v5.1": "5.1.0", "v6.0": "6.0.14", "v6.1": "6.0.17"}
QPS = 25.0
MEAN_TOKENS = 90.25
NUM = 20_000


def seeds(round_name: str) -> dict[str, Value]:
    names = ("qsl", "sample_index", "schedule")
    return {
        f"effective_{name}_rng_seed": seed
        for name, seed in zip(names, SEEDS[round_name], strict=True)
    }


def server(round_name: str = "v6.1", num: int = NUM) -> dict[str, Value]:
    """The keys of a VALID Server test in LoadGen's order."""
    values: dict[str, Value] = {
        "loadgen_version": f"{VERSIONS[round_name]} @ 0123456789",
        "requested_scenario": "Server",
        "requested_test_mode": "PerformanceOnly",
        "requested_server_target_qps": QPS,
        "requested_use_token_latencies": True,
        "requested_server_ttft_latency": 2_000_000_000,
        "requested_server_tpot_latency": 100_000_000,
        "effective_scenario": "Server",
        "effective_test_mode": "PerformanceOnly",
        "effective_target_qps": QPS,
        "effective_target_latency_ns": 0,
        "effective_target_latency_percentile": 0.99,
        "effective_min_duration_ms": 600_000,
        "effective_max_duration_ms": 0,
        "effective_min_query_count": 100,
        "effective_max_query_count": 0,
        "effective_min_sample_count": 100,
        **seeds(round_name),
        "generated_query_count": num,
        "generated_samples_per_query": 1,
        "generated_query_duration": round(1e9 * num / QPS),
        "power_begin": "11-24-2026 02:15:00.000",
        "power_end": "11-24-2026 02:28:20.000",
        "result_validity": "VALID",
        "result_perf_constraints_met": True,
        "result_min_duration_met": True,
        "result_min_queries_met": True,
        "early_stopping_met": True,
        "early_stopping_ttft_result": " * Run successful.",
        "early_stopping_tpot_result": " * Run successful.",
        "result_query_count": num,
        "result_overlatency_query_count": num,
        "result_scheduled_samples_per_sec": QPS,
        "result_completed_samples_per_sec": QPS,
        "result_99.00_percentile_latency_ns": 6_000_000_000,
        "result_99.90_percentile_latency_ns": 6_100_000_000,
        "result_first_token_50.00_percentile_latency_ns": 300_000_000,
        "result_first_token_90.00_percentile_latency_ns": 600_000_000,
        "result_first_token_99.00_percentile_latency_ns": 1_000_000_000,
        "result_token_throughput_with_loadgen_overhead": QPS * MEAN_TOKENS,
        "result_token_throughput": 1e-9,
        "result_time_per_output_token_50.00_percentile_ns": 38_000_000,
        "result_time_per_output_token_90.00_percentile_ns": 40_000_000,
        "result_time_per_output_token_99.00_percentile_ns": 45_000_000,
        "result_time_to_output_token_min": 22_000,  # two tokens may come at once
        "result_completed_tokens_per_second": QPS * MEAN_TOKENS * num / (num - 1),
    }
    return values if round_name == "v5.0" else values | {"num_errors": 0}


def broken(changes: Mapping[str, Value], round_name: str = "v6.1") -> dict[str, Value]:
    """The same, with some values changed."""
    return server(round_name) | dict(changes)


def ten_queries() -> dict[str, Value]:
    """TTFT 50 ms, TPOT 38 ms; the only defect is that there are ten queries."""
    return server(num=10) | {
        "generated_query_count": 20_000,
        "effective_max_query_count": 10,
        "result_validity": "INVALID",
        "result_min_duration_met": False,
        "result_min_queries_met": False,
        "early_stopping_met": False,
        "result_invalid_reason": "Increase the target QPS so the loadgen pre-generates more "
        "queries. The test exited early, before enough queries were issued.",
        "early_stopping_ttft_result": "",
        "early_stopping_tpot_result": " * Run unsuccessful.  * Processed 10 queries.  * Would need "
        "to run at least 449 more queries,  with the run being successful if every additional  "
        "query were under latency.",
        "result_first_token_99.00_percentile_latency_ns": 50_000_000,
        "result_time_per_output_token_99.00_percentile_ns": 38_000_000,
    }


def write(folder: Path, values: Mapping[str, Value], errors: tuple[str, ...] = ()) -> Path:
    """Write a detail log, with ``errors`` where a test logs them, and counted where LoadGen counts
    them. Returns ``folder``."""
    if errors and values.get("num_errors") == 0:
        values = dict(values) | {"num_errors": len(errors)}
    entries = [(key, value, False) for key, value in values.items()]
    place = [key for key, _, _ in entries].index("power_end")
    entries[place:place] = [("error_runtime", message, True) for message in errors]
    folder.mkdir(parents=True, exist_ok=True)
    lines = (
        line(key, value, is_error=is_error, time_ms=1500.0 + number)
        for number, (key, value, is_error) in enumerate(entries)
    )
    (folder / mllog.FILE_NAME).write_text("".join(lines), newline="")
    return folder


def line(key: str, value: Value, *, is_error: bool = False, time_ms: float = 1500.0) -> str:
    """A line as LoadGen writes it: no string is escaped."""
    text = f'"{value}"' if isinstance(value, str) else json.dumps(value)
    flag = json.dumps(is_error)
    return (
        f'{PREFIX}{{"key": "{key}", "value": {text}, "time_ms": {time_ms:f}, '
        '"namespace": "mlperf::logging", "event_type": "POINT_IN_TIME", '
        f'"metadata": {{"is_error": {flag}, "is_warning": false, "file": "results.cc", '
        '"line_no": 1, "pid": 7, "tid": 7}}\n'
    )
