"""What the harness itself costs on the head: measured before the phases of a run, with an engine
that takes no time (:mod:`sut.run.overhead`). Pure.

The latencies contain LoadGen, the dispatcher, the sockets and the replay engine's process, so they
are upper bounds of what the harness adds to a measured latency.
"""

from __future__ import annotations

from sut.plan.benchmark import Scenario
from sut.results.measures import Measures
from sut.values import Struct

NEAR = 0.1  # of the ceiling


class Tail(Struct, frozen=True, kw_only=True):
    """Microseconds, by LoadGen's percentiles."""

    p50: float
    p99: float
    p999: float


class Ceiling(Struct, frozen=True, kw_only=True):
    """An Offline test with every place of one engine taken. A lower bound of what the dispatcher
    can do: the engine, on the same cores, may be the slower part. CPU time is that of the whole
    process with LoadGen and the dispatcher."""

    num_tokens: int  # of each answer
    token_events_per_s: float
    cpu_us_per_token: float


class Paced(Struct, frozen=True, kw_only=True):
    """A Server test. ``planned_qps`` is the run's load, None where the scenario has none; ``qps``
    is at least as high, so that the test has a thousand queries."""

    planned_qps: float | None
    qps: float
    num_queries: int
    num_tokens: int  # of each answer
    ttft_us: Tail
    tpot_us: Tail
    cpu_us_per_token: float


class Overhead(Struct, frozen=True, kw_only=True):
    """``not_measured`` is the reason why there is neither."""

    ceiling: Ceiling | None = None
    paced: Paced | None = None
    not_measured: str = ""


def load_share(overhead: Overhead, scenario: Scenario, measures: Measures) -> float | None:
    """The part of the ceiling that a phase took: by its offered load, or in a scenario without one
    by its throughput. None where either is unknown."""
    tokens, rate = measures.tokens_per_s, measures.samples_per_s
    if overhead.ceiling is None or not tokens or not rate:
        return None
    load = tokens
    if scenario.loadgen == "Server" and measures.target_qps is not None:
        load = measures.target_qps * tokens / rate
    return load / overhead.ceiling.token_events_per_s


def is_near_the_ceiling(overhead: Overhead, scenario: Scenario, measures: Measures) -> bool:
    share = load_share(overhead, scenario, measures)
    return share is not None and share > NEAR


def share(added_us: float, measured_ms: float | None) -> float | None:
    """The part of a measured latency that the harness took at most."""
    return min(1.0, added_us / 1e3 / measured_ms) if measured_ms else None
