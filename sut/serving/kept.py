"""The engines that a run keeps for the next one, as the run and ``sut engines`` use them.

:mod:`sut.serving.keeper` owns them. A run holds a keeper by its connection, so a run that dies
without releasing them ends them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from sut.errors import RunError
from sut.machine import processes
from sut.rundir import RunDir
from sut.serving import registry
from sut.serving.channel import Channel, LostError
from sut.serving.keeper_messages import (
    ANSWER,
    Acquire,
    Answer,
    Exits,
    GetExits,
    GetStatus,
    Granted,
    Ports,
    Release,
    Request,
    Setup,
    StartEngine,
    Status,
    Stop,
)
from sut.serving.messages import Done, Problem
from sut.serving.process import Command, PartId

KEEPER = "sut.serving.keeper"
END_S = 5.0  # from the engines' end to the keeper's


class Kept:
    """A run's hold on its keeper. ``granted`` is None for engines that this run starts."""

    def __init__(
        self,
        keeper: str,
        channel: Channel,
        ports: tuple[Ports, ...],
        granted: Granted | None = None,
    ) -> None:
        self.keeper = keeper
        self.ports = ports
        self.granted = granted
        # What a run wants its successors to know; it lives as long as the engines.
        self.memory = dict(granted.memory) if granted else {}
        self._channel: Channel | None = channel

    def start(self, part: PartId, command: Command) -> None:
        """Start an engine's process. Raises RunError."""
        answer = self._ask(StartEngine(part=part, command=command))
        if isinstance(answer, Problem):
            raise RunError(answer.message, code=answer.code, replica=part[0])

    def exits(self) -> dict[PartId, int]:
        """The engines that exited, and their status. Raises RunError where the keeper is gone."""
        if self._channel is None:
            return {}
        answer = self._ask(GetExits())
        assert isinstance(answer, Exits)
        return {each.part: each.status for each in answer.exits}

    def release(self, started_utc: str, ready: Sequence[bytes], samples: Sequence[int]) -> bool:
        """Leave the engines to the next run; whether they stay. ``ready`` is each replica's READY
        message, ``samples`` the number that each had in this run. Their sockets must be closed."""
        if self._channel is None:
            return False
        try:
            release = Release(
                started_utc=started_utc,
                ready=tuple(ready),
                samples=tuple(samples),
                memory=self.memory,
            )
            answer = _exchange(self._channel, release)
        except LostError:
            answer = None
        self._close()
        return isinstance(answer, Done)

    def stop(self, grace_s: float) -> None:
        """Stop the engines, unless they were released, and wait for their end."""
        if self._channel is not None:
            with contextlib.suppress(LostError):  # its end is the engines' end
                self._channel.send(Stop(grace_s=grace_s))
                # A signal may have left an earlier answer unread, so no answer says that it is the
                # one to this request.
                while self._channel.poll(grace_s + END_S):
                    self._channel.receive(ANSWER)
            self._close()

    def _ask(self, request: Request) -> Answer:
        assert self._channel is not None
        try:
            return _exchange(self._channel, request)
        except LostError as error:
            self._close()
            raise RunError(
                f"lost the process that owns the engines (sut.serving.keeper): {error}",
                hint="see the logs of the replicas, or run without --keep-engine",
                code="keeper_lost",
            ) from None

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def acquire(keeper: str, run: str, keep_s: float) -> Kept | str | None:
    """Hold a living keeper. None where there is none; where it cannot be held, the reason."""
    connected = registry.connect(keeper)
    if connected is None:
        return None
    channel = Channel(connected)
    try:
        answer = _exchange(channel, Acquire(run=run, keep_s=keep_s))
    except LostError as error:
        channel.close()
        # It ended meanwhile, or hangs.
        return None if registry.connect(keeper) is None else str(error)
    if isinstance(answer, Granted):
        return Kept(keeper, channel, answer.ports, answer)
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
        sockets = [stack.enter_context(_reserve(host)) for _ in range(3 * num_replicas)]
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        registry.limit_silence(ours)
        registry.limit_silence(theirs)
        numbers = iter([each.getsockname()[1] for each in sockets])
        _spawn(setup.run, [each.fileno() for each in (listener, theirs, *sockets)])
    setup = msgspec.structs.replace(setup, ports=tuple(zip(numbers, numbers, numbers, strict=True)))
    channel = Channel(ours)
    channel.send(setup)
    return Kept(setup.keeper, channel, setup.ports)


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


def _spawn(run: str, fds: Sequence[int]) -> None:
    log = RunDir(run).keeper_log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        subprocess.Popen(
            [sys.executable, "-m", KEEPER, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=fds,
        )


def living() -> Iterator[tuple[str, Status | None]]:
    """The keepers of this machine and their states; None for one that does not answer. Raises
    OSError."""
    registry.forget_dead()
    for keeper in registry.ids():
        connected = registry.connect(keeper)
        if connected is None:
            continue
        channel = Channel(connected)
        try:
            answer = _exchange(channel, GetStatus())
        except LostError:
            answer = None
        finally:
            channel.close()
        yield keeper, answer if isinstance(answer, Status) else None


def stop(keeper: str, grace_s: float) -> str:
    """Stop a keeper and its engines, and wait for their end. A run that uses them keeps them to its
    end: then the answer is the reason. A keeper that does not answer is killed, and the kernel ends
    its engines."""
    connected = registry.connect(keeper)
    if connected is None:
        return ""
    pid = registry.pid_of(connected)
    channel = Channel(connected)
    try:
        channel.send(Stop(grace_s=grace_s))
        if not channel.poll(grace_s + END_S):
            return _kill(pid)
        answer = channel.receive(ANSWER)
    except LostError:  # it has ended
        return ""
    finally:
        channel.close()
    return answer.message if isinstance(answer, Problem) else ""


def _kill(pid: int) -> str:
    """Kill a keeper that does not answer. Where it has not started yet, the process is the run that
    starts it; where it is in another PID namespace, the number is 0. Neither is killed."""
    if KEEPER not in processes.arguments(pid):
        return "no answer"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return ""


def _exchange(channel: Channel, request: Request) -> Answer:
    channel.send(request)
    return channel.receive(ANSWER)
