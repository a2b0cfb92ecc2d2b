"""Replicas that were lost in a phase that the others finished, and those that returned to it
(``--on-replica-loss continue`` and ``restart``)."""

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
    negative. ``samples_restarted`` of its samples started again elsewhere, for which it had
    generated ``tokens_lost`` tokens. Its engine was started again ``starts`` times, and it had
    samples again from ``returned_s`` on. ``start_failure`` is why it did not return."""

    replica: int
    nodes: tuple[str, ...]
    code: str
    message: str
    at_s: float
    samples_restarted: int
    tokens_lost: int
    returned_s: float | None = None
    starts: int = 0
    start_failure: str = ""

    @property
    def text(self) -> str:
        return f"{self.loss_text} {self.return_text}".rstrip()

    @property
    def loss_text(self) -> str:
        at = f"at {quantity(self.at_s, 's')}" if self.at_s >= 0 else "before this phase"
        cost = ""
        if self.samples_restarted:
            cost = (
                f"; {quantity(self.samples_restarted, 'samples')} started again, "
                f"{quantity(self.tokens_lost, 'tokens')} were lost"
            )
        where = f"Replica {self.replica} (node {compact(self.nodes)})"
        return f"{where} was lost {at} ({self.code}: {self.message}){cost}."

    @property
    def return_text(self) -> str:
        """What became of it; empty where nothing has."""
        if self.returned_s is not None:
            return (
                f"Replica {self.replica} returned at {quantity(self.returned_s, 's')}, "
                f"{quantity(round(self.returned_s - self.at_s, 3), 's')} after its loss."
            )
        return f"It did not return: {self.start_failure}." if self.start_failure else ""


class Survivors(Struct, frozen=True, kw_only=True):
    """What the remaining replicas completed after the last loss, until one returned. A diagnostic,
    never a result."""

    num_replicas: int
    from_s: float  # from the phase's start
    to_s: float | None = None  # None: to the last completed sample
    samples: int
    samples_per_s: float
    tokens_per_s: float

    @property
    def text(self) -> str:
        until = "on" if self.to_s is None else f"to {quantity(self.to_s, 's')}"
        return (
            f"From {quantity(self.from_s, 's')} {until}, the "
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
    returns = [loss.returned_s for loss in losses if loss.returned_s is not None]
    to_s = min((each for each in returns if each > from_s), default=None)
    end_s = samples.completed_ms[-1] / 1e3 if to_s is None else to_s
    span_s = end_s - from_s
    rows = [row for row, ms in enumerate(samples.completed_ms) if from_s <= ms / 1e3 <= end_s]
    if not rows or span_s <= 0:
        return None
    tokens = sum(samples.output_tokens[row] for row in rows)
    return Survivors(
        num_replicas=num_replicas - sum(is_lost_at(loss, from_s) for loss in losses),
        from_s=from_s,
        to_s=to_s,
        samples=len(rows),
        samples_per_s=round(len(rows) / span_s, 3),
        tokens_per_s=round(tokens / span_s, 3),
    )


def is_lost_at(loss: ReplicaLoss, at_s: float) -> bool:
    return loss.at_s <= at_s and (loss.returned_s is None or loss.returned_s > at_s)
