"""What the head of a run asks of its other nodes, and its end of the talk: :class:`RemoteNode`.

Strictly one request, one answer. The head asks; when it has nothing to ask it asks for the state,
about once a second, so each end knows that the other is there.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, wait
from typing import TypeVar

import msgspec

from sut.channel import Channel, LostError
from sut.engine import Launch, PartId
from sut.errors import CANCELLED, RunError
from sut.plan import Struct

HEARTBEAT_S = 1.0
POLL_S = 0.1


class Hello(Struct, frozen=True, kw_only=True):
    """A node's first word. ``host`` is its address, as the other nodes reach it."""

    node: int  # its place in Plan.nodes
    host: str


class Start(Struct, frozen=True, kw_only=True, tag="start"):
    """Start an engine's process. The answer is Done."""

    launch: Launch
    model_path: str | None


class FreePort(Struct, frozen=True, kw_only=True, tag="free_port"):
    """The answer is Port."""


class GetState(Struct, frozen=True, kw_only=True, tag="get_state"):
    """The answer is State."""


class End(Struct, frozen=True, kw_only=True, tag="end"):
    """Stop the engines, kill what still runs after ``grace_s``, and close the connection."""

    grace_s: float


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    pass


class Port(Struct, frozen=True, kw_only=True, tag="port"):
    port: int


class Exit(Struct, frozen=True, kw_only=True):
    """An engine's process that is over; ``status`` is negative for a signal."""

    part: PartId
    status: int


class State(Struct, frozen=True, kw_only=True, tag="state"):
    exits: tuple[Exit, ...] = ()
    signalled: str | None = None  # the signal that told the node to end


class Problem(Struct, frozen=True, kw_only=True, tag="problem"):
    """What was asked could not be done."""

    code: str
    message: str


Request = Start | FreePort | GetState | End
Answer = Done | Port | State | Problem
HELLO = msgspec.json.Decoder(Hello)
REQUEST = msgspec.json.Decoder[Request](Request)
ANSWER = msgspec.json.Decoder[Answer](Answer)

_A = TypeVar("_A", Done, Port, State)


class RemoteNode:
    """The head's view of another node. One thread of its own owns the channel."""

    def __init__(self, name: str, host: str, channel: Channel) -> None:
        self.name = name
        self.host = host
        self.state = State()
        self._channel = channel
        self._lost: str | None = None
        self._requests: queue.SimpleQueue[tuple[Request, Future[Answer]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._talk, name=f"node {name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunError if the node is lost, or was told by someone else to end."""
        if self._lost is not None:
            raise RunError(
                f"node {self.name} is lost: {self._lost}. Is it up? sinfo -N -n {self.name}",
                code="node_lost",
                node=self.name,
            )
        if self.state.signalled:
            raise RunError(
                f"cancelled by {self.state.signalled} on node {self.name}",
                code=CANCELLED,
                node=self.name,
            )

    def start(self, launch: Launch, model_path: str | None) -> None:
        """Raises RunError, as all that follow."""
        self._ask(Start(launch=launch, model_path=model_path), Done)

    def free_port(self) -> int:
        return self._ask(FreePort(), Port).port

    def exits(self) -> dict[PartId, int]:
        """Which of its engines are over, as it was known a second ago, and how they ended."""
        return {each.part: each.status for each in self.state.exits}

    def refresh(self) -> None:
        """Wait until its state is one of after this call, or it is known to be lost."""
        self.state = self._ask(GetState(), State)

    def begin_end(self, grace_s: float) -> None:
        """Tell it to end. Does not wait, and does nothing for a lost one."""
        self._requests.put((End(grace_s=grace_s), Future()))

    def await_end(self, timeout_s: float) -> None:
        """Wait until it has stopped its engines, or is lost, or the time is over."""
        self._thread.join(max(0.0, timeout_s))

    def _ask(self, request: Request, kind: type[_A]) -> _A:
        future: Future[Answer] = Future()
        self._requests.put((request, future))
        while not future.done() and self._thread.is_alive():
            wait([future], POLL_S)
        if not future.done():
            self.check()
        answer = future.result(timeout=0)
        if isinstance(answer, Problem):
            raise RunError(answer.message, code=answer.code, node=self.name)
        assert isinstance(answer, kind)
        return answer

    def _talk(self) -> None:
        try:
            while True:
                request, future = self._next()
                self._channel.send(request)
                if isinstance(request, End):
                    break
                answer = self._channel.receive(ANSWER)
                if isinstance(answer, State):
                    self.state = answer
                future.set_result(answer)
            while not self._channel.poll(HEARTBEAT_S):  # it closes the connection when it is done
                pass
        except LostError as error:
            self._lost = str(error)
        finally:
            self._lost = self._lost or "it was told to end"
            self._channel.close()

    def _next(self) -> tuple[Request, Future[Answer]]:
        try:
            return self._requests.get(timeout=HEARTBEAT_S)
        except queue.Empty:
            return GetState(), Future()
