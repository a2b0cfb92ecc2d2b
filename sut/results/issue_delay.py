"""How late LoadGen issued the queries of a Server test, from its log and the samples.

LoadGen's queries arrive at times drawn from the seed and the rate in its log. Latencies count from
these times, so a query that is issued late has a longer latency through no fault of the engines.
This is computed after the test; nothing that serves a query knows the times.

The common zero of both clocks is unknown. Delays count from the query that was issued soonest after
its time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping

from sut.results.mllog import Scalar
from sut.results.sample_log import SampleLog
from sut.values import Struct

SEED_KEY, QPS_KEY = "effective_schedule_rng_seed", "effective_target_qps"


class IssueDelay(Struct, frozen=True, kw_only=True):
    """Issued minus scheduled time, in ms. ``scheduled`` and ``issued`` are the numbers of queries
    in each second of the test, ``max_ms_by_second`` the longest delay of those scheduled in it."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    scheduled: tuple[int, ...]
    issued: tuple[int, ...]
    max_ms_by_second: tuple[float, ...]


def of(values: Mapping[str, Scalar], samples: SampleLog | None) -> IssueDelay | None:
    """``values`` are of LoadGen's detail log. None for a scenario without a schedule, or where a
    sample is missing."""
    seed, qps = values.get(SEED_KEY), values.get(QPS_KEY)
    count = values.get("result_query_count")
    if values.get("effective_scenario") != "Server" or samples is None or not len(samples):
        return None
    if not isinstance(seed, int) or not isinstance(qps, int | float) or count != len(samples):
        return None
    arrivals = schedule_ms(seed, qps)
    pairs = [(next(arrivals), issued) for issued in sorted(samples.issued_ms)]
    zero = min(issued - scheduled for scheduled, issued in pairs)
    return _summary([(scheduled, issued - zero) for scheduled, issued in pairs])


def _summary(pairs: list[tuple[float, float]]) -> IssueDelay:
    delays = sorted(issued - scheduled for scheduled, issued in pairs)
    num_seconds = 1 + int(max(issued for _, issued in pairs) / 1e3)
    scheduled, issued = [0] * num_seconds, [0] * num_seconds
    longest = [0.0] * num_seconds
    for planned, actual in pairs:
        second = int(planned / 1e3)
        scheduled[second] += 1
        issued[int(actual / 1e3)] += 1
        longest[second] = max(longest[second], actual - planned)
    return IssueDelay(
        p50_ms=round(_at(delays, 0.5), 3),
        p99_ms=round(_at(delays, 0.99), 3),
        max_ms=round(delays[-1], 3),
        scheduled=tuple(scheduled),
        issued=tuple(issued),
        max_ms_by_second=tuple(round(each, 3) for each in longest),
    )


def _at(ordered: list[float], quantile: float) -> float:
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def schedule_ms(seed: int, qps: float) -> Iterator[float]:
    """LoadGen's arrival times: a Poisson process from ``std::mt19937`` and libstdc++'s
    ``std::exponential_distribution``, in whole nanoseconds."""
    bits = _mt19937(seed)
    arrival_ns = 0
    while True:
        yield arrival_ns / 1e6
        low = bits.getrandbits(32)
        uniform = min((low + bits.getrandbits(32) * 2.0**32) / 2.0**64, 1.0 - 2.0**-53)
        arrival_ns += int(-math.log(1.0 - uniform) / qps * 1e9)


def _mt19937(seed: int) -> random.Random:
    """Python has the same generator with another seeding."""
    state = [seed % 2**32]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) % 2**32)
    generator = random.Random()
    generator.setstate((3, (*state, 624), None))
    return generator
