"""Watches whether the running test may still be VALID."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sut import _core, messages
from sut.results import budget, mllog
from sut.results.budget import Hopeless
from sut.results.goal import Goal, goal_of


class BudgetWatch:
    """``hopeless`` is None while the test may still be VALID. With ``stop``, the test is ended as
    soon as it may not."""

    def __init__(
        self, test: _core.LoadGenTest, dispatcher: _core.Dispatcher, log_dir: Path, *, stop: bool
    ) -> None:
        self._test, self._dispatcher, self._stop = test, dispatcher, stop
        self._log = log_dir / mllog.FILE_NAME
        self._log.unlink(missing_ok=True)  # an earlier attempt's has another number of queries
        self._limits_ns = test.limits_ns
        self._goal: Goal | None = None
        self._hopeless: Hopeless | None = None
        dispatcher.reset_stats(test.limits_ns)

    @property
    def num_over(self) -> tuple[int, int] | None:
        """The number of samples over LoadGen's limits on TTFT and on TPOT; None without limits."""
        return self._dispatcher.num_over() if self._limits_ns else None

    @property
    def hopeless(self) -> Hopeless | None:
        """Its ``ended`` is known once the test is over."""
        found, ended = self._hopeless, self._test.ended
        return msgspec.structs.replace(found, ended=ended) if found else None

    def look(self, now_s: float) -> None:
        """Look at the counts ``now_s`` after the test's start."""
        if self._limits_ns is None or self._hopeless is not None:
            return
        self._goal = self._goal or self._read_goal()
        if self._goal is None:
            return
        self._hopeless = budget.used_up(self._goal, self._dispatcher.num_over(), now_s)
        if self._hopeless is not None:
            self._report(self._hopeless)

    def _read_goal(self) -> Goal | None:
        so_far = mllog.read_so_far(self._log)
        return goal_of(so_far) if so_far else None

    def _report(self, hopeless: Hopeless) -> None:
        if self._stop:
            self._test.end()
        hint = budget.ENDING if self._stop else budget.GOES_ON
        messages.report(f"warning: performance: {hopeless.text}\nhint: {hint}")
