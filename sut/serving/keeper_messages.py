"""What runs and commands ask a keeper of engines, and its answers.

Each request gets one answer. The connection that started a keeper, or acquired it, holds it.
"""

from __future__ import annotations

import msgspec

from sut.serving.channel import Channel
from sut.serving.keys import RunKeys
from sut.serving.messages import Done, Exit, Problem
from sut.serving.process import Command, PartId
from sut.values import Struct

Ports = tuple[int, int, int]  # of a replica's front-end: handshake, input, output


class Served(Struct, frozen=True, kw_only=True):
    """What engines have done for the runs that held them, and what these leave to the next one."""

    started_utc: str = ""
    runs: int = 0
    samples: tuple[int, ...] = ()  # of each replica; none before the first run
    ready: tuple[bytes, ...] = ()  # each replica's READY message
    reports: tuple[bytes, ...] = ()  # what each replica's engine reported of itself
    memory: dict[str, str] = {}


class Setup(Struct, frozen=True, kw_only=True):
    """The first message on the connection that started the keeper. There is no answer."""

    keeper: str  # its id
    what: str  # what the engines serve, for people
    settings: dict[str, str]  # see sut.serving.engine_settings
    resources: tuple[str, ...]
    job_id: str  # Slurm's; empty outside of a job
    until_pid: int | None  # the keeper ends with this process
    ports: tuple[Ports, ...] = ()  # of each replica
    keys: RunKeys  # the same for all runs that the engines serve
    run: str  # the run directory
    keep_s: float


class StartEngine(Struct, frozen=True, kw_only=True, tag="start_engine"):
    """From the holder. The answer is Done or Problem."""

    part: PartId
    command: Command


class GetExits(Struct, frozen=True, kw_only=True, tag="get_exits"):
    """The answer is Exits."""


class Acquire(Struct, frozen=True, kw_only=True, tag="acquire"):
    """Hold the engines for a run. The answer is Granted, or Problem where they are in use."""

    run: str
    keep_s: float


class Release(Struct, frozen=True, kw_only=True, tag="release"):
    """From the holder: its run ended cleanly, and the engines may serve the next. The answer is
    Done."""

    served: Served


class GetStatus(Struct, frozen=True, kw_only=True, tag="get_status"):
    """The answer is Status."""


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    """Stop the engines and end; ``grace_s`` after that, kill them. The answer is Done once they
    have ended. While a run holds them it is Problem for all others, and they end with that run.
    ``why`` is for people."""

    grace_s: float
    why: str


class Exits(Struct, frozen=True, kw_only=True, tag="exits"):
    exits: tuple[Exit, ...]


class Granted(Struct, frozen=True, kw_only=True, tag="granted"):
    served: Served
    ports: tuple[Ports, ...]
    keys: RunKeys
    sessions: tuple[int, ...]  # of the engines' processes


class Status(Struct, frozen=True, kw_only=True, tag="status"):
    keeper: str
    what: str
    settings: dict[str, str]
    resources: tuple[str, ...]
    job_id: str
    started_utc: str
    runs: int
    samples: tuple[int, ...]
    run: str  # that holds the engines; empty: none
    ends_in_s: float | None  # None while a run holds them


Request = StartEngine | GetExits | Acquire | Release | GetStatus | Stop
Answer = Done | Problem | Exits | Granted | Status
SETUP = msgspec.json.Decoder(Setup)
REQUEST: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
ANSWER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def exchange(channel: Channel, request: Request) -> Answer:
    """Send a request and return its answer. Raises LostError."""
    channel.send(request)
    return channel.receive(ANSWER)
