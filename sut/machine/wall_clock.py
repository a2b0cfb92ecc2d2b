"""Whether the system's clock was set while a test ran.

LoadGen measures with ``std::chrono::high_resolution_clock``, which in GNU's library is the system's
clock: a step of it is a step of every latency in flight and of the test's duration. Everything else
of a run uses the monotonic clock.
"""

from __future__ import annotations

import time
from typing import NamedTuple

LEAST_S = 0.1  # a smaller step is below what one delayed thread does to a latency


class _Ahead(NamedTuple):
    """Bounds of how far the system's clock is ahead of the monotonic one."""

    least_s: float
    most_s: float


class WallClock:
    """Begins to watch when it is created. Both clocks run at the same rate, also while NTP slews
    them, so that only a step changes their difference."""

    def __init__(self) -> None:
        self._before = _ahead()

    def step_s(self) -> float | None:
        """How far the clock was set since the creation, None if it was not. A delay of this thread
        is not taken for a step."""
        now = _ahead()
        if now.least_s > self._before.most_s + LEAST_S:
            return now.least_s - self._before.most_s
        if now.most_s < self._before.least_s - LEAST_S:
            return now.most_s - self._before.least_s
        return None


def _ahead() -> _Ahead:
    before, wall, after = time.monotonic(), time.time(), time.monotonic()
    return _Ahead(wall - after, wall - before)
