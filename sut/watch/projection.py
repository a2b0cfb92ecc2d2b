"""The expected verdict and end of a running phase, from LoadGen's settings and the last line of
progress. Pure functions."""

from __future__ import annotations

from typing import Literal

from sut.results.budget import used_up
from sut.results.early_stopping import queries_needed
from sut.results.goal import Goal
from sut.results.progress import Line
from sut.units import against, number, quantity
from sut.values import Struct

IDLE_SHARE = 0.1  # of the samples; once these are done, a replica without any is reported


class Projection(Struct, frozen=True, kw_only=True):
    """``verdict`` is None while nothing is known, and for a test without limits. ``certain``: later
    samples cannot change it. ``left_s`` is None before the first sample is done."""

    verdict: Literal["VALID", "INVALID"] | None
    certain: bool
    reasons: tuple[str, ...]
    num_samples: int
    left_s: float | None

    @property
    def words(self) -> str:
        match self.verdict, self.certain:
            case "INVALID", True:
                return "will be INVALID"
            case None, _:
                return ""
            case verdict, _:
                return f"{verdict} so far"


def project(goal: Goal, line: Line) -> Projection:
    """The outcome if the phase continues as it has."""
    total = _total(goal, line)
    certain, so_far = _certain(goal, line, total), _so_far(goal, line, total)
    known = goal.performance and (line.completed > 0 or bool(certain))
    verdict: Literal["VALID", "INVALID"] = "INVALID" if certain or so_far else "VALID"
    return Projection(
        verdict=verdict if known else None,
        certain=bool(certain),
        reasons=(*certain, *so_far) if known else (),
        num_samples=total,
        left_s=_left_s(goal, line, total),
    )


def _total(goal: Goal, line: Line) -> int:
    if goal.scenario != "SingleStream" or not goal.performance or not line.elapsed_s:
        return goal.num_samples
    return max(goal.num_samples, round(goal.min_duration_s * line.completed / line.elapsed_s))


def _left_s(goal: Goal, line: Line, total: int) -> float | None:
    if not line.completed or not line.elapsed_s:
        return None
    # Half of each sample in flight is done: without it the first seconds look far too slow.
    done = line.completed + line.in_flight / 2
    by_rate = max(0.0, total - done) * line.elapsed_s / done
    if goal.scenario != "Server" or line.completed >= total:
        return by_rate if line.completed < total else 0.0
    by_schedule = max(0.0, goal.schedule_s - line.elapsed_s)
    return by_schedule if line.queued == 0 else max(by_schedule, by_rate)


def _certain(goal: Goal, line: Line, total: int) -> list[str]:
    """Why the phase will be INVALID whatever the remaining samples do."""
    if not goal.performance:
        return []
    reasons = []
    if goal.error:
        reasons.append(f'LoadGen logged an error: "{goal.error}".')
    unit = "samples" if goal.scenario == "Offline" else "queries"
    if total < goal.min_samples:
        least = number(goal.min_samples)
        reasons.append(f"It will issue {quantity(total, unit)}; at least {least} needed.")
    if goal.scenario == "Server" and goal.schedule_s < goal.min_duration_s:
        length = against(goal.schedule_s, goal.min_duration_s, "s")
        least = quantity(goal.min_duration_s, "s")
        reasons.append(f"It will run about {length}; at least {least} needed.")
    if goal.scenario != "Offline":
        reasons += _early_stopping(goal, line, total)
    return reasons


def _early_stopping(goal: Goal, line: Line, total: int) -> list[str]:
    sure = f"to be 99% sure of p{100 * goal.percentile:g}"
    allowance = 1 if goal.scenario == "SingleStream" else 0
    if total < (needed := queries_needed(allowance, goal.percentile)):
        return [f"{quantity(total, 'queries')}: too few {sure}; {number(needed)} needed."]
    if line.hopeless is not None:
        return [line.hopeless.text]  # since it was found, not since this line
    if goal.ttft_limit_ms is None:
        return []
    over = (line.ttft_over or 0, line.tpot_over or 0)
    found = used_up(goal, over, line.elapsed_s)
    return [found.text] if found else []


def _so_far(goal: Goal, line: Line, total: int) -> list[str]:
    """Why the phase will be INVALID if it continues as it has."""
    if not goal.performance or not line.completed:
        return []
    reasons = [
        f"{name} p99 is {against(p99, limit, 'ms')}; the limit is {quantity(limit, 'ms')}."
        for name, p99, limit in (
            ("TTFT", line.ttft_p99_ms, goal.ttft_limit_ms),
            ("TPOT", line.tpot_p99_ms, goal.tpot_limit_ms),
        )
        if p99 is not None and limit is not None and p99 > limit
    ]
    will_run_s = line.elapsed_s * total / line.completed
    if goal.scenario == "Offline" and will_run_s < goal.min_duration_s:
        length = against(will_run_s, goal.min_duration_s, "s")
        least = quantity(goal.min_duration_s, "s")
        reasons.append(f"At this rate it will run about {length}; at least {least} needed.")
    if line.completed > IDLE_SHARE * total:
        idle = [str(r.index) for r in line.replicas if not r.completed and not r.in_flight]
        if idle:
            reasons.append(f"No sample was completed by replica {', '.join(idle)}.")
    return reasons
