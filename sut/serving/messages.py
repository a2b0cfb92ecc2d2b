"""What the head of a run asks of its other nodes, and what they answer. Strictly one request, one
answer; the head asks."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sut.serving.channel import Channel
from sut.serving.node_check import NodeReport
from sut.serving.process import Launch, PartId
from sut.values import Struct


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


class BeginCheck(Struct, frozen=True, kw_only=True, tag="begin_check"):
    """Begin to look at the node. The answer, Done, comes before that is over."""

    model_path: str | None


class GetReport(Struct, frozen=True, kw_only=True, tag="get_report"):
    """The answer is Report."""


class GetClock(Struct, frozen=True, kw_only=True, tag="get_clock"):
    """The answer is Clock."""


class TakeBurst(Struct, frozen=True, kw_only=True, tag="take_burst"):
    """So many messages of bytes follow. The answer, Done, comes after the last."""

    num_chunks: int


class SendBurst(Struct, frozen=True, kw_only=True, tag="send_burst"):
    """The answer is so many messages of so many bytes."""

    num_chunks: int
    chunk_bytes: int


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


class Report(Struct, frozen=True, kw_only=True, tag="report"):
    """``report`` is None until the look is over; ``doing`` is what it is at."""

    report: NodeReport | None
    doing: str


class Clock(Struct, frozen=True, kw_only=True, tag="clock"):
    time_ns: int  # since the epoch


class Problem(Struct, frozen=True, kw_only=True, tag="problem"):
    """What was asked could not be done."""

    code: str
    message: str


Request = (
    Start | FreePort | GetState | BeginCheck | GetReport | GetClock | TakeBurst | SendBurst | End
)
Answer = Done | Port | State | Report | Clock | Problem
HELLO = msgspec.json.Decoder(Hello)
REQUEST: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
ANSWER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)

A = TypeVar("A", Done, Port, State, Report, Clock)


def exchange(channel: Channel, request: Request) -> Answer:
    """The head's end of one request. Raises LostError."""
    channel.send(request)
    return channel.receive(ANSWER)
