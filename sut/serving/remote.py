"""The head's view of another node of the run: :class:`RemoteNode`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from sut.errors import CANCELLED, NODE_LOST, RunError
from sut.results.record import PreflightCheck
from sut.rundir import Outage
from sut.serving.channel import Channel, LostError
from sut.serving.messages import (
    A,
    Answer,
    BeginCheck,
    Done,
    End,
    EngineReported,
    FreePort,
    GetEngineReport,
    GetListening,
    GetReport,
    GetState,
    Kill,
    Listening,
    Port,
    Problem,
    Report,
    Request,
    Start,
    State,
    exchange,
)
from sut.serving.process import Launch, PartId
from sut.values import Struct

HEARTBEAT_S = 1.0
POLL_S = 0.1

_T = TypeVar("_T")
Call = Callable[[Channel], Any]


class Link(Struct, frozen=True, order=True):
    """The fastest request for a node's state so far. The clock's offset is known to within half
    of the round trip."""

    round_trip_ms: float
    clock_ahead_ms: float  # of the node's clock against the head's


class RemoteNode:
    """Another node. One thread owns the channel, and callers wait for it.

    It asks for the node's state once a second when there is no other request, so each end notices
    when the other is gone.
    """

    def __init__(self, name: str, host: str, channel: Channel) -> None:
        self.name = name
        self.host = host
        self._channel = channel
        self._state, self._state_at = State(time_ns=0), 0.0  # and when, by time.monotonic()
        self._link: Link | None = None
        self._lost: str | None = None
        # Calls on the channel and where their results go; None ends the thread.
        self._calls: queue.SimpleQueue[tuple[Call, Future[Any]] | None] = queue.SimpleQueue()
        self._grace_s = 0.0
        self._thread = threading.Thread(target=self._serve, name=f"node {name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> RunError | None:
        """Why the node is lost; None while it is not."""
        if self._lost is None:
            return None
        return RunError(
            f"lost node {self.name}: {self._lost}",
            hint=f"check that it is up: sinfo -N -n {self.name}",
            code=NODE_LOST,
            node=self.name,
        )

    def check(self) -> None:
        """Raise RunError if the node is lost, or received a signal to stop."""
        if lost := self.lost:
            raise lost
        if self._state.signalled:
            raise RunError(
                f"cancelled by {self._state.signalled} on node {self.name}",
                code=CANCELLED,
                node=self.name,
            )

    def start(self, launch: Launch, model_path: str | None) -> None:
        """Raises RunError, like every method below that sends a request."""
        self._ask(Start(launch=launch, model_path=model_path), Done)

    def kill(self, part: PartId) -> None:
        """Kill an engine's processes. Does not wait for their end."""
        self._ask(Kill(part=part), Done)

    def free_port(self) -> int:
        return self._ask(FreePort(), Port).port

    def engine_report(self, part: PartId) -> bytes:
        """What an engine's process reported of itself; empty if it did not."""
        return self._ask(GetEngineReport(part=part), EngineReported).content

    def begin_check(self, model_path: str | None) -> None:
        self._ask(BeginCheck(model_path=model_path), Done)

    def report(self) -> Report:
        """The state of the checks that :meth:`begin_check` started."""
        return self._ask(GetReport(), Report)

    def listening(self) -> PreflightCheck:
        """The addresses that the run's processes on the node listen on."""
        return self._ask(GetListening(), Listening).check

    def link(self, num_round_trips: int) -> Link:
        """The link to the node, after at least so many requests for its state."""
        for _ in range(num_round_trips):
            self.refresh()
        assert self._link is not None
        return self._link

    def exits(self) -> dict[PartId, int]:
        """Its engines that exited, with their status, at most a second old."""
        return {each.part: each.status for each in self._state.exits}

    def meters_outage(self) -> Outage | None:
        """When its meters failed, by this node's :func:`time.monotonic`."""
        found, at = self._state.no_readings, self._state_at
        if found is None:
            return None
        end = None if found.works_s is None else at - found.works_s
        return Outage(found.cause, at - found.ago_s, end)

    def refresh(self) -> None:
        self._call(self._update_state)

    def begin_end(self, grace_s: float) -> None:
        """Ask it to stop its engines. Does not wait, and does nothing for a lost node."""
        self._grace_s = grace_s
        self._calls.put(None)

    def await_end(self, timeout_s: float) -> None:
        """Wait until it has stopped its engines, is lost, or the timeout expires."""
        self._thread.join(max(0.0, timeout_s))

    def _ask(self, request: Request, kind: type[A]) -> A:
        answer: Answer = self._call(lambda channel: exchange(channel, request))
        if isinstance(answer, Problem):
            raise RunError(answer.message, code=answer.code, replica=answer.replica, node=self.name)
        assert isinstance(answer, kind)
        return answer

    def _call(self, call: Callable[[Channel], _T]) -> _T:
        future: Future[_T] = Future()
        self._calls.put((call, future))
        while not future.done() and self._thread.is_alive():
            wait([future], POLL_S)
        if not future.done():
            self.check()
        return future.result(timeout=0)

    def _serve(self) -> None:
        try:
            while (following := self._next()) is not None:
                call, future = following
                future.set_result(call(self._channel))
            self._channel.send(End(grace_s=self._grace_s))
            while not self._channel.poll(HEARTBEAT_S):  # the node closes the connection when done
                pass
        except LostError as error:
            self._lost = str(error)
        finally:
            self._lost = self._lost or "it was asked to stop"
            self._channel.close()

    def _next(self) -> tuple[Call, Future[Any]] | None:
        try:
            return self._calls.get(timeout=HEARTBEAT_S)
        except queue.Empty:
            return self._update_state, Future()

    def _update_state(self, channel: Channel) -> None:
        sent_ns, begin_ns = time.time_ns(), time.monotonic_ns()
        state = exchange(channel, GetState())
        took_ns = time.monotonic_ns() - begin_ns
        assert isinstance(state, State)
        self._state, self._state_at = state, time.monotonic()
        # The node reads its clock half a round trip after the request leaves.
        ahead_ns = state.time_ns - (sent_ns + took_ns // 2)
        link = Link(round_trip_ms=took_ns / 1e6, clock_ahead_ms=ahead_ns / 1e6)
        self._link = link if self._link is None else min(self._link, link)
