"""The keepers of engines on this machine: list them, stop them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from sut.machine import processes
from sut.serving import registry
from sut.serving.channel import Channel, LostError
from sut.serving.keeper_messages import ANSWER, GetStatus, Status, Stop, exchange
from sut.serving.messages import Problem

KEEPER = "sut.serving.keeper"
END_S = 5.0  # from the engines' end to the keeper's


def living() -> Iterator[tuple[str, Status | None]]:
    """The keepers of this machine and their states; None for one that does not answer. Raises
    OSError."""
    registry.forget_dead()
    for keeper in registry.ids():
        try:
            connected = registry.connect(keeper)
        except OSError:  # it does not accept connections
            yield keeper, None
            continue
        if connected is not None:
            with contextlib.closing(Channel(connected)) as channel:
                answer = None
                with contextlib.suppress(LostError):
                    answer = exchange(channel, GetStatus())
            yield keeper, answer if isinstance(answer, Status) else None


def stop(keeper: str, grace_s: float, why: str) -> str:
    """Stop a keeper and its engines, and wait for their end. A run that uses them keeps them to its
    end: then the answer is the reason. A keeper that does not answer is killed, and the kernel ends
    its engines."""
    try:
        connected = registry.connect(keeper)
    except OSError as error:
        return f"no answer ({error.strerror})"
    if connected is None:
        return ""
    pid = registry.pid_of(connected)
    with contextlib.closing(Channel(connected)) as channel:
        try:
            channel.send(Stop(grace_s=grace_s, why=why))
            if not channel.poll(grace_s + END_S):
                return kill(pid)
            answer = channel.receive(ANSWER)
        except LostError:  # it has ended
            return ""
    return f"{answer.message}; ends with that run" if isinstance(answer, Problem) else ""


def kill(pid: int) -> str:
    """Kill a keeper that does not answer. Where it has not started yet, the process may be the run
    that starts it; where it is in another PID namespace, the number is 0. Neither is killed."""
    if KEEPER not in processes.arguments(pid):
        return "no answer"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return ""
