"""Every node of a run except the head: :func:`serve`."""

from __future__ import annotations

import signal
import time
from types import FrameType

from sut.cluster.allocation import Allocation
from sut.errors import EXIT_FAILED, RunError
from sut.machine import network
from sut.machine.meters import Sampler
from sut.plan.placement import gpus_of
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.serving import rendezvous
from sut.serving.channel import Channel, LostError
from sut.serving.local import LocalNode
from sut.serving.messages import (
    REQUEST,
    Answer,
    BeginCheck,
    Done,
    End,
    EngineReported,
    Exit,
    FreePort,
    GetEngineReport,
    GetListening,
    GetReport,
    GetState,
    Hello,
    Kill,
    Listening,
    NoReadings,
    Port,
    Problem,
    Request,
    Start,
    State,
)

# A live head can be silent for some seconds: importing torch keeps the GIL. The connection to a
# dead or unreachable head ends long before.
HEAD_SILENCE_S = 30.0
SIGNALLED_S = 10.0  # from a signal until the head must have ended the run
GRACE_S = 10.0
POLL_S = 0.5


def serve(plan: Plan, run_dir: RunDir, allocation: Allocation) -> int:
    """Answer the head's requests until it ends the run, and return the exit code.

    A node that loses its head stops its engines and fails.
    """
    signalled = _Signalled()
    name, head = allocation.nodes[allocation.node], allocation.nodes[0]
    path = run_dir.rendezvous(allocation.key)
    _print(name, f"waiting for head {head} to write {path}")
    found = rendezvous.find(path, plan.timeouts.join_s)
    if found is None:
        _print(name, f"stopping: head {head} not reached within {plan.timeouts.join_s:g} s")
        return EXIT_FAILED
    channel, keys = found
    _print(name, f"connected to head {head}")
    host = _host(plan, channel)
    node = LocalNode(plan, run_dir, allocation.node, name, host, keys)
    grace_s = GRACE_S
    try:
        channel.send(Hello(node=allocation.node, host=node.host))
        places = gpus_of(plan, allocation.node)
        with Sampler(run_dir.telemetry(name), places=places) as meters:
            grace_s = _serve(channel, node, signalled, meters)
    except LostError as error:
        _print(name, f"stopping: lost head {head}: {error}")
        return EXIT_FAILED
    finally:
        node.stop(grace_s)
        channel.close()
    _print(name, "done")
    return 0


def _serve(channel: Channel, node: LocalNode, signalled: _Signalled, meters: Sampler) -> float:
    """Answer requests until the one to end, and return how long engines may take to stop."""
    last = time.monotonic()
    while True:
        if channel.poll(POLL_S):
            request = channel.receive(REQUEST)
            if isinstance(request, End):
                return request.grace_s
            channel.send(_answer(request, node, signalled, meters))
            last = time.monotonic()
        elif time.monotonic() - last > HEAD_SILENCE_S:
            raise LostError(f"no request for {HEAD_SILENCE_S:g} s")
        elif signalled.at is not None and time.monotonic() - signalled.at > SIGNALLED_S:
            raise LostError(f"it did not end the run within {SIGNALLED_S:g} s of {signalled.name}")


def _host(plan: Plan, channel: Channel) -> str:
    try:
        return network.address_of(plan.interface) if plan.interface else channel.local_host
    except RunError:  # preflight reports it
        return channel.local_host


def _answer(request: Request, node: LocalNode, signalled: _Signalled, meters: Sampler) -> Answer:
    try:
        match request:
            case Start():
                node.start(request.launch, request.model_path)
            case Kill():
                node.kill(request.part)
            case FreePort():
                return Port(port=node.free_port())
            case GetEngineReport():
                return EngineReported(content=node.engine_report(request.part))
            case BeginCheck():
                node.begin_check(request.model_path)
            case GetReport():
                return node.report()
            case GetListening():
                return Listening(check=node.listening())
            case GetState():
                exits = node.exits().items()
                return State(
                    time_ns=time.time_ns(),
                    exits=tuple(Exit(part=part, status=status) for part, status in exits),
                    signalled=signalled.name,
                    no_readings=_no_readings(meters),
                )
    except RunError as error:
        return Problem(code=error.code, message=str(error), replica=error.replica)
    return Done()


def _no_readings(meters: Sampler) -> NoReadings | None:
    outage, now = meters.outage, time.monotonic()
    if outage is None:
        return None
    works_s = None if outage.end is None else now - outage.end
    return NoReadings(cause=outage.cause, ago_s=now - outage.begin, works_s=works_s)


class _Signalled:
    """The first SIGTERM or SIGINT. It is reported to the head, which ends the run on all nodes."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.at: float | None = None
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the head handles the wall limit
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.at is None:
            self.name, self.at = signal.Signals(number).name, time.monotonic()


def _print(name: str, text: str) -> None:
    print(f"node {name}: {text}", flush=True)
