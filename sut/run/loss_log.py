"""The losses and returns of replicas, in the run's log: :class:`LossLog`."""

from __future__ import annotations

from sut import messages
from sut.plan.plan import OnReplicaLoss
from sut.run.replicas import Replicas

NEXT = {
    OnReplicaLoss.CONTINUE: "The run continues without it.",
    OnReplicaLoss.RESTART: "Its engine is started again.",
}


class LossLog:
    """Of one phase. What happened before it is not printed again."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._printed: set[str] = set()

    def print_news(self) -> None:
        if not self._replicas.dispatcher.losses():
            return
        for place, loss in enumerate(self._replicas.losses()):
            if loss.at_s >= 0:
                self._print_once(f"loss {place}", f"{loss.loss_text} {self._next()}")
            if loss.return_text:
                self._print_once(f"return {place}", loss.return_text)

    def _next(self) -> str:
        return NEXT.get(self._replicas.plan.on_replica_loss, "")

    def _print_once(self, key: str, text: str) -> None:
        if key not in self._printed:
            messages.report(f"warning: {text}")
            self._printed.add(key)
