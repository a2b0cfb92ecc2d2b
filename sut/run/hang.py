"""Whether LoadGen still goes on with its test."""

from __future__ import annotations

import time
from pathlib import Path

from sut import _core
from sut.errors import RunError
from sut.plan import user_conf
from sut.plan.plan import Plan
from sut.results import answers, mllog
from sut.units import number, quantity

LOGS = (mllog.FILE_NAME, answers.FILE_NAME, "mlperf_log_summary.txt")
STALLS = 5  # of `stall_s`: LoadGen prepares millions of queries, and sorts as many latencies
LEAST_S = 30.0
# Between two queries of the Server scenario passes an exponential time: one of more than 30 means
# comes once in 10^13 queries.
GAPS = 30
LOADGENS_QPS = 1.0  # where user.conf has no target_qps
LOOK_S = 0.5
SEEN_S = 1.0  # of the time between two looks, what counts


class LoadGenWatch:
    """LoadGen has no deadlines: where its log cannot be written, its test never returns.

    It hangs when for :func:`limit_s` no sample was queued or in flight, none was issued, and no log
    grew. Time in which this process itself was held up, as by a folder that does not answer, counts
    for a second only."""

    def __init__(
        self,
        dispatcher: _core.Dispatcher,
        log_dir: Path,
        plan: Plan,
        chosen_qps: float | None = None,
    ) -> None:
        self._limit_s = limit_s(plan, chosen_qps)
        self._dispatcher, self._log_dir = dispatcher, log_dir
        self._last: tuple[int, ...] = ()
        self._looked = time.monotonic()
        self._silent_s = 0.0

    def look(self) -> None:
        """Raise RunError if LoadGen hangs."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        stats = self._dispatcher.live_stats()
        is_idle = stats.issued == stats.completed + stats.withdrawn
        state = (stats.issued, stats.completed, *self._log_sizes())
        if not is_idle or state != self._last:
            self._silent_s = 0.0
        else:
            self._silent_s += min(now - self._looked, SEEN_S)
        self._last, self._looked = state, now
        if self._silent_s > self._limit_s:
            raise RunError(
                f"LoadGen has stopped: for {quantity(round(self._limit_s), 's')} it issued no "
                f"sample and logged nothing. It has the answers to all {number(stats.issued)} "
                "samples that it issued",
                hint="run it again: LoadGen seldom loses a log entry and waits for it; before, see "
                f"whether its logs can be written: ls -l {self._log_dir}",
                code="loadgen_hung",
            )

    def _log_sizes(self) -> list[int]:
        return [_size(self._log_dir / name) for name in LOGS]


def limit_s(plan: Plan, chosen_qps: float | None = None) -> float:
    """How long LoadGen may do nothing in a test of the plan, s. ``chosen_qps`` is the load that
    the plan leaves to the run or its sweep (:meth:`Plan.chosen_qps`)."""
    gaps_s = 0.0  # only Server waits for anything but answers
    if plan.scenario.loadgen == "Server":
        qps = user_conf.target_qps(plan.loadgen_settings, plan.sweep, chosen_qps)
        gaps_s = GAPS / (LOADGENS_QPS if qps is None else qps)
    return max(STALLS * plan.timeouts.stall_s, LEAST_S) + gaps_s


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
