"""Engines of lost replicas, started again while a test runs: :class:`Restarts`.

A restarted engine has its own sockets, keys and dispatcher until it is warm: its warm-up is in no
count of the run's dispatcher. Then it takes the lost replica's place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sut import _core
from sut.errors import NODE_LOST, RunError
from sut.plan.plan import Replica
from sut.run import sockets
from sut.run.failures import EXIT_GRACE_S, exit_text
from sut.serving import wire
from sut.serving.nodes import MAX_RESTARTS, Nodes
from sut.serving.process import Address

STOP_S = 30.0  # from the kill of a lost engine to the end of its processes


Steps = Generator[None, None, None]  # each returns at once


class NoReturnError(Exception):
    """Why a restarted engine does not rejoin; its text is for people."""


class Return:
    """What was done about one loss. ``code`` and ``message`` are its cause."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        self.starts = 0
        self.failure = ""  # why the last start was none that rejoined
        self.is_over = False


class Restarts:
    """Poll it from the main thread."""

    def __init__(
        self,
        nodes: Nodes,
        dispatcher: _core.Dispatcher,
        connect: Callable[[_core.ReplicaLinks], _core.Dispatcher],
        warm_up: Sequence[int],
        model_path: Path | None,
    ) -> None:
        """``connect`` makes a dispatcher with the run's requests for a restarted engine, which runs
        the samples ``warm_up`` first."""
        self._nodes = nodes
        self._dispatcher = dispatcher
        self._connect = connect
        self._warm_up = warm_up
        self._model_path = model_path
        self._num_starts = [0] * len(nodes.plan.replicas)
        self._steps: dict[int, Steps] = {}
        self.returns: dict[int, Return] = {}  # by the place of the loss in Dispatcher.losses()

    @property
    def is_busy(self) -> bool:
        """Whether a restart is under way."""
        return bool(self._steps)

    def poll(self) -> None:
        """Begin the restart of each replica that was lost, and take a step of those under way.
        Without a replica that works or may return, the dispatcher fails."""
        losses = self._dispatcher.losses()
        for place, loss in enumerate(losses):
            if place not in self.returns:
                self.returns[place] = Return(loss.why.code, loss.why.message)
                replica = self._nodes.plan.replicas[loss.why.replica]
                self._steps[place] = self._bring_back(replica, self.returns[place])
        for place, steps in tuple(self._steps.items()):
            try:
                next(steps)
            except StopIteration:
                del self._steps[place]
                self.returns[place].is_over = True
        if not self._steps:
            self._require_replica()

    def _require_replica(self) -> None:
        losses = self._dispatcher.losses()
        lost = [loss.why.replica for loss in losses if loss.rejoined_ns is None]
        if len(lost) == len(self._num_starts) and len(losses) == len(self.returns):
            last = self.returns[len(losses) - 1]
            message = f"{last.message}; no replica is left: {last.failure}"
            self._dispatcher.fail(last.code, message, lost[-1])

    def close(self) -> None:
        """End the restarts under way; their engines end with the run."""
        for steps in self._steps.values():
            steps.close()
        self._steps.clear()

    def _bring_back(self, replica: Replica, found: Return) -> Steps:
        yield from self._find_cause(replica, found)
        found.failure = f"its engine was started again {MAX_RESTARTS} times before"
        while (number := self._num_starts[replica.index] + 1) <= MAX_RESTARTS:
            if why := self._nodes.lost().get(replica.index):  # a node can be found lost late
                found.code, found.message, found.failure = NODE_LOST, why, why
                return
            self._num_starts[replica.index] = number
            found.starts += 1
            try:
                yield from self._restart(replica, number)
            except (NoReturnError, RunError) as error:
                found.failure = str(error).partition("\n")[0]
            else:
                found.failure = ""
                return

    def _find_cause(self, replica: Replica, found: Return) -> Steps:
        """Of a lost connection, the exit of the process behind it. It is known a moment later."""
        deadline = time.monotonic() + EXIT_GRACE_S
        while True:
            if self._nodes.lost().get(replica.index):
                return
            if died := self._exit_of(replica):
                found.code, found.message = "engine_died", died
                return
            if time.monotonic() > deadline:
                return
            yield

    def _restart(self, replica: Replica, number: int) -> Steps:
        """Start the engine, warm it up, and let it rejoin. Raises NoReturnError, RunError."""
        plan, nodes = self._nodes.plan, self._nodes
        nodes.kill(replica)
        deadline = time.monotonic() + STOP_S
        while not nodes.has_ended(replica):
            self._require(replica, deadline, f"did not end within {STOP_S:g} s of SIGKILL")
            yield
        links = sockets.bind(nodes, [nodes.keys.of_starts[replica.index][number]])
        warmed = self._connect(links)
        with ThreadPoolExecutor(1) as pool:
            try:
                handshake = Address(*links.handshake_address(0))
                nodes.start(replica, handshake, self._model_path, number)
                deadline = time.monotonic() + plan.timeouts.ready_s
                while not warmed.wait_ready(0):
                    self._require_running(replica, warmed)
                    late = f"was not ready within {plan.timeouts.ready_s:g} s of its restart"
                    self._require(replica, deadline, late)
                    yield
                response = warmed.ready_response(0)
                assert response is not None
                wire.check_ready(response, plan)
                warmed.set_credit(0, len(self._warm_up))
                warmed.watch_deadlines(False)
                run = pool.submit(warmed.generate, self._warm_up, 0, plan.timeouts.warmup_s)
                while not run.done():
                    self._require_running(replica, warmed)
                    yield
                if error := run.exception():
                    raise NoReturnError(f"replica {replica.index} did not warm up: {error}")
                self._rejoin(replica, warmed)
            finally:
                warmed.close()

    def _rejoin(self, replica: Replica, warmed: _core.Dispatcher) -> None:
        try:
            self._dispatcher.rejoin(replica.index, warmed)
        except RuntimeError as error:  # its engine has failed, or the run
            raise NoReturnError(f"replica {replica.index} did not rejoin: {error}") from None

    def _require_running(self, replica: Replica, warmed: _core.Dispatcher) -> None:
        if why := self._nodes.lost().get(replica.index):
            raise NoReturnError(why)
        if died := self._exit_of(replica):
            raise NoReturnError(f"{died} after its restart")
        if failure := warmed.failure:
            raise NoReturnError(f"{failure.message} after its restart")

    @staticmethod
    def _require(replica: Replica, deadline: float, late: str) -> None:
        if time.monotonic() > deadline:
            raise NoReturnError(f"replica {replica.index} {late}")

    def _exit_of(self, replica: Replica) -> str | None:
        """The exit of its process; of several, the one that was killed."""
        exits = [each for each in self._nodes.exits().items() if each[0][0] == replica.index]
        return exit_text(*min(exits, key=lambda each: each[1])) if exits else None
