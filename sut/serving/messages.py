"""The requests of the head of a run to its other nodes, and their answers.

Only the head sends requests, one at a time, and each gets one answer.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sut.results.record import PreflightCheck
from sut.serving.channel import Channel
from sut.serving.node_check import NodeReport
from sut.serving.process import Launch, PartId
from sut.values import Struct


class Hello(Struct, frozen=True, kw_only=True):
    """A node's first message. ``host`` is the address at which other nodes reach it."""

    node: int  # its index in Plan.nodes
    host: str


class Start(Struct, frozen=True, kw_only=True, tag="start"):
    """Start an engine's process. The answer is Done."""

    launch: Launch
    model_path: str | None


class Kill(Struct, frozen=True, kw_only=True, tag="kill"):
    """Kill an engine's processes. The answer is Done, sent before they have ended."""

    part: PartId


class FreePort(Struct, frozen=True, kw_only=True, tag="free_port"):
    """The answer is Port."""


class GetState(Struct, frozen=True, kw_only=True, tag="get_state"):
    """The answer is State."""


class GetEngineReport(Struct, frozen=True, kw_only=True, tag="get_engine_report"):
    """The answer is EngineReported."""

    part: PartId


class BeginCheck(Struct, frozen=True, kw_only=True, tag="begin_check"):
    """Start the node's checks. The answer is Done, sent before they finish."""

    model_path: str | None


class GetReport(Struct, frozen=True, kw_only=True, tag="get_report"):
    """The answer is Report."""


class GetListening(Struct, frozen=True, kw_only=True, tag="get_listening"):
    """The answer is Listening."""


class End(Struct, frozen=True, kw_only=True, tag="end"):
    """Stop the engines, kill those still running after ``grace_s``, and close the connection.
    There is no answer."""

    grace_s: float


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    pass


class Port(Struct, frozen=True, kw_only=True, tag="port"):
    port: int


class EngineReported(Struct, frozen=True, kw_only=True, tag="engine_reported"):
    content: bytes  # empty: nothing was reported


class Exit(Struct, frozen=True, kw_only=True):
    """An engine process that exited; ``status`` is negative for a signal."""

    part: PartId
    status: int


class NoReadings(Struct, frozen=True, kw_only=True):
    """A node's meters failed ``ago_s`` before this message; ``works_s`` ago they worked again,
    None if they do not."""

    cause: str
    ago_s: float
    works_s: float | None = None


class State(Struct, frozen=True, kw_only=True, tag="state"):
    time_ns: int  # the node's clock, since the epoch
    exits: tuple[Exit, ...] = ()
    signalled: str | None = None  # the first signal that asked the node to stop
    no_readings: NoReadings | None = None


class Report(Struct, frozen=True, kw_only=True, tag="report"):
    """``report`` is None while the checks run; ``doing`` is their current step."""

    report: NodeReport | None
    doing: str


class Listening(Struct, frozen=True, kw_only=True, tag="listening"):
    check: PreflightCheck


class Problem(Struct, frozen=True, kw_only=True, tag="problem"):
    code: str
    message: str
    replica: int | None = None


Request = (
    Start
    | Kill
    | FreePort
    | GetEngineReport
    | GetState
    | BeginCheck
    | GetReport
    | GetListening
    | End
)
Answer = Done | Port | EngineReported | State | Report | Listening | Problem
HELLO = msgspec.json.Decoder(Hello)
REQUEST: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
ANSWER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)

A = TypeVar("A", Done, Port, EngineReported, State, Report, Listening)


def exchange(channel: Channel, request: Request) -> Answer:
    """Send a request and return its answer. Raises LostError."""
    channel.send(request)
    return channel.receive(ANSWER)
