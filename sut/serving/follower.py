"""The life of every node of a run but the head: :func:`serve`."""

from __future__ import annotations

import signal
import time
from types import FrameType

from sut.cluster.allocation import Allocation
from sut.errors import EXIT_FAILED, RunError
from sut.machine import network
from sut.machine.meters import Sampler
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.serving import rendezvous
from sut.serving.channel import Channel, LostError
from sut.serving.local import LocalNode
from sut.serving.messages import (
    REQUEST,
    Answer,
    BeginCheck,
    Clock,
    Done,
    End,
    Exit,
    FreePort,
    GetClock,
    GetReport,
    GetState,
    Hello,
    Port,
    Problem,
    Request,
    SendBurst,
    Start,
    State,
    TakeBurst,
)

# The connection of a head that died or can't be reached ends long before. A head that lives may be
# silent for some seconds: it imports torch, which holds Python's lock.
HEAD_SILENCE_S = 30.0
SIGNALLED_S = 10.0  # how long a node that was told to end waits for the head to do it in order
GRACE_S = 10.0
POLL_S = 0.5


def serve(plan: Plan, run_dir: RunDir, allocation: Allocation) -> int:
    """Do what the head asks until it says that the run is over, and return the exit code.

    A node that loses its head stops its engines and fails.
    """
    signalled = _Signalled()
    name, head = allocation.nodes[allocation.node], allocation.nodes[0]
    path = run_dir.rendezvous(allocation.key)
    _say(name, f"waits for {head} to write {path}")
    channel = rendezvous.find(path, plan.timeouts.join_s)
    if channel is None:
        _say(name, f"gives up: {head} could not be reached within {plan.timeouts.join_s:g} s")
        return EXIT_FAILED
    _say(name, f"reached {head}")
    host = _host(plan, channel)
    node = LocalNode(plan, run_dir, allocation.node, name, host)
    grace_s = GRACE_S
    try:
        channel.send(Hello(node=allocation.node, host=node.host))
        with Sampler(run_dir.telemetry(name)):
            grace_s = _obey(channel, node, signalled)
    except LostError as error:
        _say(name, f"leaves: {head} is lost: {error}")
        return EXIT_FAILED
    finally:
        node.stop(grace_s)
        channel.close()
    _say(name, "is done")
    return 0


def _obey(channel: Channel, node: LocalNode, signalled: _Signalled) -> float:
    """Answer requests until the one to end, and return how long engines may take for that."""
    heard = time.monotonic()
    while True:
        if not channel.poll(POLL_S):
            if time.monotonic() - heard > HEAD_SILENCE_S:
                raise LostError(f"it asked nothing for {HEAD_SILENCE_S:g} s")
            if signalled.at is not None and time.monotonic() - signalled.at > SIGNALLED_S:
                raise LostError(f"it did not end the run after {signalled.name}")
            continue
        request = channel.receive(REQUEST)
        heard = time.monotonic()
        if isinstance(request, End):
            return request.grace_s
        match request:
            case SendBurst():
                for _ in range(request.num_chunks):
                    channel.send_bytes(bytes(request.chunk_bytes))
            case TakeBurst():
                for _ in range(request.num_chunks):
                    channel.receive_bytes()
                channel.send(Done())
            case _:
                channel.send(_answer(request, node, signalled))


def _host(plan: Plan, channel: Channel) -> str:
    try:
        return network.address_of(plan.interface) if plan.interface else channel.local_host
    except RunError:  # the look at this node will tell
        return channel.local_host


def _answer(request: Request, node: LocalNode, signalled: _Signalled) -> Answer:
    try:
        match request:
            case Start():
                node.start(request.launch, request.model_path)
            case FreePort():
                return Port(port=node.free_port())
            case BeginCheck():
                node.begin_check(request.model_path)
            case GetReport():
                return node.report()
            case GetClock():
                return Clock(time_ns=time.time_ns())
            case GetState():
                exits = node.exits().items()
                return State(
                    exits=tuple(Exit(part=part, status=status) for part, status in exits),
                    signalled=signalled.name,
                )
    except RunError as error:
        return Problem(code=error.code, message=str(error))
    return Done()


class _Signalled:
    """Remembers the first SIGTERM or SIGINT. The head hears of it and ends the run for all."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.at: float | None = None
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the wall limit is the head's business
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.at is None:
            self.name, self.at = signal.Signals(number).name, time.monotonic()


def _say(name: str, text: str) -> None:
    print(f"node {name} {text}", flush=True)
