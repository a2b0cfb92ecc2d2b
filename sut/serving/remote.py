"""The head's view of another node of the run: :class:`RemoteNode`.

When there is nothing to ask it asks for the state, about once a second, so each end knows that
the other is there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from sut.errors import CANCELLED, NODE_LOST, RunError
from sut.serving import link
from sut.serving.channel import Channel, LostError
from sut.serving.link import Link
from sut.serving.messages import (
    A,
    Answer,
    BeginCheck,
    Done,
    End,
    FreePort,
    GetReport,
    GetState,
    Port,
    Problem,
    Report,
    Request,
    Start,
    State,
    exchange,
)
from sut.serving.process import Launch, PartId

HEARTBEAT_S = 1.0
POLL_S = 0.1

_T = TypeVar("_T")
_Talk = Callable[[Channel], Any]


class RemoteNode:
    """Another node. One thread of its own owns the channel; whoever calls waits for it."""

    def __init__(self, name: str, host: str, channel: Channel) -> None:
        self.name = name
        self.host = host
        self._channel = channel
        self._state = State()
        self._lost: str | None = None
        # What to say on the channel, and where its result goes; None ends the talk.
        self._talks: queue.SimpleQueue[tuple[_Talk, Future[Any]] | None] = queue.SimpleQueue()
        self._grace_s = 0.0
        self._thread = threading.Thread(target=self._talk, name=f"node {name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunError if the node is lost, or was told by someone else to end."""
        if self._lost is not None:
            raise RunError(
                f"node {self.name} is lost: {self._lost}. Is it up? sinfo -N -n {self.name}",
                code=NODE_LOST,
                node=self.name,
            )
        if self._state.signalled:
            raise RunError(
                f"cancelled by {self._state.signalled} on node {self.name}",
                code=CANCELLED,
                node=self.name,
            )

    def start(self, launch: Launch, model_path: str | None) -> None:
        """Raises RunError, as all that follow."""
        self._ask(Start(launch=launch, model_path=model_path), Done)

    def free_port(self) -> int:
        return self._ask(FreePort(), Port).port

    def begin_check(self, model_path: str | None) -> None:
        self._ask(BeginCheck(model_path=model_path), Done)

    def report(self) -> Report:
        """What :meth:`begin_check` has come to."""
        return self._ask(GetReport(), Report)

    def measure_link(self) -> Link:
        return self._say(link.measure)

    def exits(self) -> dict[PartId, int]:
        """Which of its engines are over, as it was known a second ago, and how they ended."""
        return {each.part: each.status for each in self._state.exits}

    def refresh(self) -> None:
        """Wait until its state is one of after this call, or it is known to be lost."""
        self._state = self._ask(GetState(), State)

    def begin_end(self, grace_s: float) -> None:
        """Tell it to end. Does not wait, and does nothing for a lost one."""
        self._grace_s = grace_s
        self._talks.put(None)

    def await_end(self, timeout_s: float) -> None:
        """Wait until it has stopped its engines, or is lost, or the time is over."""
        self._thread.join(max(0.0, timeout_s))

    def _ask(self, request: Request, kind: type[A]) -> A:
        answer: Answer = self._say(lambda channel: exchange(channel, request))
        if isinstance(answer, Problem):
            raise RunError(answer.message, code=answer.code, node=self.name)
        assert isinstance(answer, kind)
        return answer

    def _say(self, talk: Callable[[Channel], _T]) -> _T:
        future: Future[_T] = Future()
        self._talks.put((talk, future))
        while not future.done() and self._thread.is_alive():
            wait([future], POLL_S)
        if not future.done():
            self.check()
        return future.result(timeout=0)

    def _talk(self) -> None:
        try:
            while (next_talk := self._next()) is not None:
                talk, future = next_talk
                future.set_result(talk(self._channel))
            self._channel.send(End(grace_s=self._grace_s))
            while not self._channel.poll(HEARTBEAT_S):  # it closes the connection when it is done
                pass
        except LostError as error:
            self._lost = str(error)
        finally:
            self._lost = self._lost or "it was told to end"
            self._channel.close()

    def _next(self) -> tuple[_Talk, Future[Any]] | None:
        try:
            return self._talks.get(timeout=HEARTBEAT_S)
        except queue.Empty:
            return self._beat, Future()

    def _beat(self, channel: Channel) -> None:
        state = exchange(channel, GetState())
        assert isinstance(state, State)
        self._state = state
