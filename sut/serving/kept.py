"""A run's hold on engines that stay for the next run.

:mod:`sut.serving.keeper` owns them. A run holds a keeper by its connection, so a run that dies
without releasing them ends them.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from sut.errors import RunError
from sut.rundir import RunDir
from sut.serving import ended, keepers, registry
from sut.serving.channel import Channel, LostError
from sut.serving.keeper_messages import (
    ANSWER,
    Acquire,
    Exits,
    GetExits,
    Granted,
    Ports,
    Release,
    Served,
    Setup,
    StartEngine,
    Stop,
    exchange,
)
from sut.serving.keys import RunKeys
from sut.serving.messages import Done, Problem
from sut.serving.process import Command, PartId


class Kept:
    """A run's hold on its keeper. ``granted`` is None for engines that this run starts."""

    def __init__(
        self,
        keeper: str,
        channel: Channel,
        pid: int,
        ports: tuple[Ports, ...],
        keys: RunKeys,
        granted: Granted | None = None,
    ) -> None:
        self.keeper = keeper
        self.ports = ports
        self.keys = keys
        self.granted = granted
        # What a run wants its successors to know; it lives as long as the engines.
        self.memory = dict(granted.served.memory) if granted else {}
        self._channel: Channel | None = channel
        self.pid = pid
        self._exits: dict[PartId, int] = {}
        self._exits_asked = False  # their answer has not been read

    def start(self, part: PartId, command: Command, within_s: float) -> None:
        """Start an engine's process. A keeper that has just started needs time, too. Raises
        RunError."""
        with self._required() as channel:
            channel.send(StartEngine(part=part, command=command))
            if not channel.poll(within_s):
                raise LostError(f"no answer for {within_s:g} s")
            answer = channel.receive(ANSWER)
        if isinstance(answer, Problem):
            raise RunError(answer.message, code=answer.code, replica=part[0])

    def exits(self) -> dict[PartId, int]:
        """The engines that exited, and their status. Does not wait: these are the keeper's last
        answer, and one that does not answer fails no run. Raises RunError where it has ended."""
        if self._channel is None:
            return {}
        with self._required() as channel:
            if not self._exits_asked:
                channel.send(GetExits())
                self._exits_asked = True
            elif channel.poll(0):
                self._receive_exits(channel)
        return self._exits

    def release(self, served: Served) -> bool:
        """Leave the engines to the next run; whether they stay. Their sockets must be closed. Those
        that do not stay end in :meth:`stop`."""
        if self._channel is None:
            return False
        try:
            if self._exits_asked:
                self._receive_exits(self._channel)
            released = msgspec.structs.replace(served, memory=self.memory)
            answer = exchange(self._channel, Release(served=released))
        except LostError:
            return False
        if stay := isinstance(answer, Done):
            self._close()
        return stay

    def stop(self, grace_s: float) -> None:
        """Stop the engines, unless they were released, and wait for their end. A keeper that does
        not answer is killed, and the kernel ends its engines."""
        if self._channel is not None:
            with contextlib.suppress(LostError):  # its end is the engines' end
                self._channel.send(Stop(grace_s=grace_s, why="their run did not leave them"))
                # There may be unread answers, so no answer says that it is the one to this request.
                while self._channel.poll(grace_s + keepers.END_S):
                    self._channel.receive(ANSWER)
                keepers.kill(self.pid)
            self._close()

    @contextlib.contextmanager
    def _required(self) -> Iterator[Channel]:
        """The channel, for requests without whose answers the run cannot go on."""
        assert self._channel is not None
        try:
            yield self._channel
        except LostError as error:
            raise RunError(
                f"lost the process that owns the engines (sut.serving.keeper): {error}",
                hint="see the logs of the replicas, or run without --keep-engine",
                code="keeper_lost",
            ) from None

    def _receive_exits(self, channel: Channel) -> None:
        answer = channel.receive(ANSWER)
        assert isinstance(answer, Exits)
        self._exits_asked = False
        self._exits = {each.part: each.status for each in answer.exits}

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def acquire(keeper: str, run: str, keep_s: float) -> Kept | str | None:
    """Hold a living keeper. None where there is none; where it cannot be held, the reason. Raises
    OSError."""
    connected = registry.connect(keeper)
    if connected is None:
        return None
    pid, channel = registry.pid_of(connected), Channel(connected)
    try:
        answer = exchange(channel, Acquire(run=run, keep_s=keep_s))
    except LostError as error:
        channel.close()
        # It ended meanwhile, or hangs.
        return None if registry.connect(keeper) is None else str(error)
    if isinstance(answer, Granted):
        return Kept(keeper, channel, pid, answer.ports, answer.keys, answer)
    channel.close()
    assert isinstance(answer, Problem)
    return answer.message


def create(setup: Setup, host: str, num_replicas: int) -> Kept:
    """Start a keeper, held by this run. Raises OSError; FileExistsError where it exists.

    The ports of ``setup`` are chosen here, on ``host``. The keeper has them bound until it ends, so
    that no other program gets a port to which an idle engine connects.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(registry.locked())
        listener = stack.enter_context(registry.listen(setup.keeper))
        ended.forget(setup.keeper)
        sockets = [stack.enter_context(_reserve(host)) for _ in range(3 * num_replicas)]
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        registry.limit_silence(ours)
        registry.limit_silence(theirs)
        numbers = iter([each.getsockname()[1] for each in sockets])
        pid = _spawn(setup.run, [each.fileno() for each in (listener, theirs, *sockets)])
    setup = msgspec.structs.replace(setup, ports=tuple(zip(numbers, numbers, numbers, strict=True)))
    channel = Channel(ours)
    channel.send(setup)
    return Kept(setup.keeper, channel, pid, setup.ports, setup.keys)


def _reserve(host: str) -> socket.socket:
    """A TCP port of ``host`` that only a socket with SO_REUSEADDR can bind, as ZeroMQ's do. While
    nothing listens on it, connections are refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    reserved = socket.socket(family, kind, protocol)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(address)
    except BaseException:
        reserved.close()
        raise
    return reserved


def _spawn(run: str, fds: Sequence[int]) -> int:
    """Start the keeper's process and return its id."""
    log = RunDir(run).keeper_log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", keepers.KEEPER, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=fds,
        ).pid
