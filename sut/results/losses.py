"""Replicas that were lost in a phase that the others finished (``--on-replica-loss continue``)."""

from __future__ import annotations

from collections.abc import Sequence

from sut.plan.hostlist import compact
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.units import number, quantity
from sut.values import Struct

REMEDY = (
    "Read the lost replica's log, fix what it reports, then run the test again. To measure a "
    "smaller system, plan it: --set site.num_replicas=N."
)


class ReplicaLoss(Struct, frozen=True, kw_only=True):
    """A replica that was lost ``at_s``, in seconds from the phase's start; before it, the time is
    negative. The others started ``samples_restarted`` of its samples again, for which it had
    generated ``tokens_lost`` tokens."""

    replica: int
    nodes: tuple[str, ...]
    code: str
    message: str
    at_s: float
    samples_restarted: int
    tokens_lost: int

    @property
    def text(self) -> str:
        at = f"at {quantity(self.at_s, 's')}" if self.at_s >= 0 else "before this phase"
        cost = ""
        if self.samples_restarted:
            cost = (
                f"; {quantity(self.samples_restarted, 'samples')} started again on other replicas, "
                f"{quantity(self.tokens_lost, 'tokens')} were lost"
            )
        where = f"Replica {self.replica} (node {compact(self.nodes)})"
        return f"{where} was lost {at} ({self.code}: {self.message}){cost}."


class Survivors(Struct, frozen=True, kw_only=True):
    """What the remaining replicas completed after the last loss. A diagnostic, never a result."""

    num_replicas: int
    from_s: float  # from the phase's start
    samples: int
    samples_per_s: float
    tokens_per_s: float

    @property
    def text(self) -> str:
        return (
            f"From {quantity(self.from_s, 's')} on, the "
            f"{quantity(self.num_replicas, 'replicas')} left completed "
            f"{quantity(self.samples, 'samples')}: {number(self.samples_per_s)} samples/s, "
            f"{number(self.tokens_per_s)} tokens/s. A diagnostic, not a result."
        )


def check(losses: Sequence[ReplicaLoss]) -> Check | None:
    """Whether the system was the planned one to the end; None where no replica was lost."""
    if not losses:
        return None
    text = " ".join([*(loss.text for loss in losses), "This is not the system that was planned."])
    crossed_s = max(0.0, losses[0].at_s)
    return Check("lost_replicas", False, text, len(losses), 0, "replicas", REMEDY, crossed_s)


def survivors(
    losses: Sequence[ReplicaLoss], samples: SampleLog | None, num_replicas: int
) -> Survivors | None:
    """None where no replica was lost, or where none completed a sample after the last loss."""
    if not losses or samples is None or not len(samples):
        return None
    from_s = max(0.0, losses[-1].at_s)
    span_s = samples.completed_ms[-1] / 1e3 - from_s
    rows = [row for row, ms in enumerate(samples.completed_ms) if ms / 1e3 >= from_s]
    if not rows or span_s <= 0:
        return None
    tokens = sum(samples.output_tokens[row] for row in rows)
    return Survivors(
        num_replicas=num_replicas - len(losses),
        from_s=from_s,
        samples=len(rows),
        samples_per_s=round(len(rows) / span_s, 3),
        tokens_per_s=round(tokens / span_s, 3),
    )
