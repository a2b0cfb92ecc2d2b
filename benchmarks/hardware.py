"""The efficiencies of sut/results/gpus.py and their errors.

Usage: python -m benchmarks.hardware

Fits each GPU's efficiency to its published Offline result, then simulates the highest VALID Server
load. Prompts have the lengths of sut/run/forecast.py; every answer has 128 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from sut import _core
from sut.report.markdown import table
from sut.results import gpus, peak
from sut.results.gpus import Hardware
from sut.run.forecast import stand_in_prompts
from sut.run.simulator import service_model

NUM_SAMPLES = 13_368
NUM_TOKENS = 128
MAX_MODEL_LEN = 2668
TTFT_LIMIT_NS = 2_000_000_000
TPOT_LIMIT_NS = 100_000_000


def main() -> None:
    rows = []
    slowest = 1.0
    for gpu in reversed(gpus.ALL):  # the A30 last
        fitted = msgspec.structs.replace(gpu, efficiency=slowest)
        if gpu.published:
            fitted = fit(gpu, gpu.published.offline)
            slowest = min(slowest, fitted.efficiency)
        server = server_tokens_per_s(fitted)
        published = gpu.published
        rows.append(
            [
                gpu.name,
                gpu.label,
                f"{fitted.efficiency:.3f}",
                f"{offline_tokens_per_s(fitted):,.0f}",
                f"{published.offline:,.0f}" if published else "-",
                f"{server:,.0f}",
                f"{published.server:,.0f}" if published else "-",
                f"{server / published.server - 1:+.1%}" if published else "-",
            ]
        )
    head = ["GPU", "is", "efficiency", "Offline simulated", "published"]
    print(table([*head, "Server simulated", "published", "error"], rows))


def fit(gpu: Hardware, offline: float) -> Hardware:
    """``gpu`` with the efficiency that gives this Offline result, in tokens per second."""

    def with_efficiency(efficiency: float) -> Hardware:
        return msgspec.structs.replace(gpu, efficiency=efficiency)

    return with_efficiency(
        highest(lambda value: offline_tokens_per_s(with_efficiency(value)) <= offline, 0.05, 1.5)
    )


def highest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest value, to 0.1%, for which a condition holds that holds at ``low``."""
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


PROMPTS = stand_in_prompts(NUM_SAMPLES, MAX_MODEL_LEN - NUM_TOKENS)
ANSWERS = [NUM_TOKENS] * NUM_SAMPLES


def offline_tokens_per_s(gpu: Hardware) -> float:
    schedule = schedule_of("Offline", "*.Offline.min_duration = 0\n")
    return NUM_TOKENS * NUM_SAMPLES / (simulate(gpu, schedule).end_ns / 1e9)


def server_tokens_per_s(gpu: Hardware) -> float:
    offline = offline_tokens_per_s(gpu) / NUM_TOKENS

    def is_valid(qps: float) -> bool:
        return is_valid_at(gpu, qps)

    return NUM_TOKENS * highest(is_valid, 0.3 * offline, 1.1 * offline)


def is_valid_at(gpu: Hardware, qps: float) -> bool:
    schedule = schedule_of("Server", f"*.Server.target_qps = {qps}\n")
    allowed = peak.allowed(len(schedule))
    simulated = simulate(gpu, schedule, stop_over=allowed)
    return max(simulated.num_ttft_over, simulated.num_tpot_over) <= allowed


def schedule_of(scenario: str, user_conf: str) -> _core.Schedule:
    return _core.schedule(
        model="llama3_1-8b", scenario=scenario, user_conf=user_conf, num_samples=NUM_SAMPLES
    )


def simulate(
    gpu: Hardware, schedule: _core.Schedule, stop_over: int | None = None
) -> _core.Simulated:
    return _core.simulate(
        schedule=schedule,
        prompt_tokens=PROMPTS,
        output_tokens=ANSWERS,
        service=service_model(gpu.times),
        num_replicas=1,
        max_num_seqs=gpu.max_num_seqs,
        max_num_batched_tokens=gpu.max_num_batched_tokens,
        max_model_len=MAX_MODEL_LEN,
        ttft_limit_ns=TTFT_LIMIT_NS,
        tpot_limit_ns=TPOT_LIMIT_NS,
        stop_over=stop_over,
    )


if __name__ == "__main__":
    main()
