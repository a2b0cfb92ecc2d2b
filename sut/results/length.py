"""How long a run is expected to take. Pure; :mod:`sut.run.length` finds it."""

from __future__ import annotations

import math

from sut.plan.duration import SLACK
from sut.plan.plan import Plan
from sut.values import Struct


class Length(Struct, frozen=True, kw_only=True):
    """``tests_s`` is the simulated time of LoadGen's tests, ``startup_s`` that of everything else
    in earlier runs, None without any. ``shortest_s`` is the time of the tests if the engines are
    as fast as they can be, for the reason in ``fastest``; None where it was not simulated, because
    the run is expected to fit. ``source`` is where the step times are from, in words. ``load`` is
    what was simulated where the run chooses its load."""

    tests_s: float
    startup_s: float | None
    source: str
    shortest_s: float | None = None
    fastest: str = ""
    load: str = ""

    @property
    def total_s(self) -> float:
        return self.tests_s + (self.startup_s or 0.0)


def limit_s(plan: Plan) -> float:
    """The time of a job before the signal that its wall limit is near."""
    assert plan.slurm is not None
    return 60.0 * plan.slurm.time_min - plan.slurm.signal_delay_s


def enough_min(plan: Plan, length: Length) -> int:
    """A wall limit with room for a machine that is slower than simulated, in minutes."""
    assert plan.slurm is not None
    total_s = SLACK * length.total_s + plan.slurm.signal_delay_s
    return max(plan.slurm.time_min + 1, math.ceil(total_s / 60))
