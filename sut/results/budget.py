"""When a performance test can no longer be VALID: it has more queries over a limit than LoadGen's
early stopping allows for the number of queries that it will issue. Pure functions.

TTFT and TPOT each have the whole budget. The counts are lower bounds of LoadGen's own
(``Dispatcher.num_over``), and the number of queries is an upper bound: LoadGen generates every
query before the first and logs their number, and only ``max_duration`` or an error makes it
issue fewer. Both are on the safe side, since fewer queries allow fewer over the limit.
"""

from __future__ import annotations

from typing import Literal

from sut.results.early_stopping import num_allowed
from sut.results.goal import Goal
from sut.units import number, quantity
from sut.values import Struct

ENDING = "it ends at LoadGen's next query; the report has the load to try next"
GOES_ON = "end the run: python -m sut.cancel RUN; such phases, automatically: --stop-when-hopeless"


class Hopeless(Struct, frozen=True, kw_only=True):
    """A test that cannot be VALID since ``since_s``, in seconds from its start: ``num_over``
    queries were then over the ``limit``, and LoadGen allows ``num_allowed`` of ``num_queries``.
    ``ended``: the test was ended for it."""

    limit: Literal["TTFT", "TPOT"]
    since_s: float
    num_over: int
    num_allowed: int
    num_queries: int
    ended: bool = False

    @property
    def text(self) -> str:
        return (
            f"Since {quantity(self.since_s, 's')} it can no longer be VALID: "
            f"{quantity(self.num_over, 'queries')} {'was' if self.num_over == 1 else 'were'} over "
            f"the {self.limit} limit, and LoadGen "
            f"allows {number(self.num_allowed)} of {number(self.num_queries)}."
        )


def used_up(goal: Goal, num_over: tuple[int, int], now_s: float) -> Hopeless | None:
    """Whether more queries are over the TTFT or the TPOT limit than the test may have; None while
    it may still be VALID. A test too short for any budget has none to use up."""
    if not goal.performance or goal.ttft_limit_ms is None:
        return None
    allowed = num_allowed(goal.num_samples, goal.percentile)
    if allowed is None:
        return None
    ttft_over, tpot_over = num_over
    if max(num_over) <= allowed:
        return None
    return Hopeless(
        limit="TTFT" if ttft_over > allowed else "TPOT",
        since_s=round(now_s, 3),
        num_over=ttft_over if ttft_over > allowed else tpot_over,
        num_allowed=allowed,
        num_queries=goal.num_samples,
    )
