"""What the connection between the head and a node is like: latency, bandwidth, clocks apart.

Measured on the channel itself, by the thread that owns it; takes about a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sut.serving.channel import Channel
from sut.serving.messages import ANSWER, Clock, GetClock, SendBurst, TakeBurst, exchange
from sut.values import Struct

NUM_ROUND_TRIPS = 20
CHUNK_BYTES = 2**20
MAX_CHUNKS = 64
LEAST_CHUNKS = 8
LONG_ENOUGH_S = 0.3
HOPELESS_S = 2.0


class Link(Struct, frozen=True, kw_only=True):
    """``clock_ahead_ms`` is how far the node's clock is ahead of the head's, give or take half of
    ``round_trip_ms``, the least of some. Bandwidths are of one connection."""

    round_trip_ms: float
    clock_ahead_ms: float
    to_node_mb_per_s: float
    from_node_mb_per_s: float


def measure(channel: Channel) -> Link:
    """The head's end. Raises LostError."""
    round_trip_ns, ahead_ns = min(_round_trip(channel) for _ in range(NUM_ROUND_TRIPS))
    return Link(
        round_trip_ms=round_trip_ns / 1e6,
        clock_ahead_ms=ahead_ns / 1e6,
        to_node_mb_per_s=_mb_per_s(lambda number: _send(channel, number)),
        from_node_mb_per_s=_mb_per_s(lambda number: _receive(channel, number)),
    )


def _round_trip(channel: Channel) -> tuple[int, int]:
    """How long it took, and how far the node's clock is ahead, both in ns."""
    sent, began = time.time_ns(), time.monotonic_ns()
    answer = exchange(channel, GetClock())
    took = time.monotonic_ns() - began
    assert isinstance(answer, Clock)
    return took, answer.time_ns - (sent + took // 2)


def _mb_per_s(burst: Callable[[int], None]) -> float:
    """The best of some bursts, each twice as long as the last: what the link can do, on machines
    that do other things too."""
    best, total_s, number = 0.0, 0.0, 1
    while number <= MAX_CHUNKS and (total_s < LONG_ENOUGH_S or number <= LEAST_CHUNKS):
        began = time.monotonic()
        burst(number)
        took_s = time.monotonic() - began
        best = max(best, number * CHUNK_BYTES / 1e6 / took_s)
        if took_s > HOPELESS_S:
            break
        total_s, number = total_s + took_s, 2 * number
    return best


def _send(channel: Channel, number: int) -> None:
    chunk = bytes(CHUNK_BYTES)
    channel.send(TakeBurst(num_chunks=number))
    for _ in range(number):
        channel.send_bytes(chunk)
    channel.receive(ANSWER)


def _receive(channel: Channel, number: int) -> None:
    channel.send(SendBurst(num_chunks=number, chunk_bytes=CHUNK_BYTES))
    for _ in range(number):
        channel.receive_bytes()
