"""A channel between two nodes: JSON messages over a TCP connection, with a shared secret.

Framing and authentication are those of :mod:`multiprocessing.connection`; its pickling is not used.
No call waits longer than :data:`SILENCE_S`. The kernel ends a connection when the other machine is
silent for as long, so a power loss or a broken link is noticed even while Python is busy.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any, TypeVar

import msgspec

from sut.serving.process import Address
from sut.values import UNDECODABLE

SILENCE_S = 10
CONNECT_S = 3
MAX_MESSAGE_BYTES = 2**24

_T = TypeVar("_T")


class LostError(Exception):
    """The other end is gone, does not answer, or lacks the secret. The channel is unusable."""


class Channel:
    """One end of a channel. One thread at a time may use it."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        self._socket = connected
        self._connection: Connection[Any, Any] = Connection(os.dup(connected.fileno()))

    @property
    def local_host(self) -> str:
        host: str = self._socket.getsockname()[0]
        return host

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Raises LostError."""
        try:
            self._connection.send_bytes(msgspec.json.encode(message))
        except OSError as error:
            raise _lost(error) from None

    def receive(self, decoder: msgspec.json.Decoder[_T]) -> _T:
        """The next message. Raises LostError, also for one that ``decoder`` rejects."""
        try:
            return decoder.decode(self._connection.recv_bytes(MAX_MESSAGE_BYTES))
        except (EOFError, OSError) as error:
            raise _lost(error) from None
        except UNDECODABLE as error:
            raise LostError(f"unreadable message: {error}") from None

    def poll(self, timeout_s: float) -> bool:
        """Whether a message or the connection's end arrives in time. Raises LostError."""
        try:
            return self._connection.poll(timeout_s)
        except OSError as error:
            raise _lost(error) from None

    def close(self) -> None:
        self._connection.close()
        self._socket.close()

    def authenticate(self, secret: bytes, *, asked_first: bool) -> Channel:
        """Prove to each end that the other has the secret, within CONNECT_S. Raises LostError."""
        turns = [answer_challenge, deliver_challenge]
        _limit_silence(self._socket, CONNECT_S)
        try:
            with self._ends_after(CONNECT_S):
                for turn in turns if asked_first else reversed(turns):
                    turn(self._connection, secret)
        # Python 3.11 asserts that the other end sends a challenge.
        except (AuthenticationError, AssertionError, EOFError, OSError) as error:
            self.close()
            raise LostError(f"authentication failed: {error}") from None
        _limit_silence(self._socket, SILENCE_S)
        return self

    @contextlib.contextmanager
    def _ends_after(self, seconds: float) -> Iterator[None]:
        """End the connection where the body takes longer, however much the other end sends."""

        def end() -> None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def connect(address: Address, secret: bytes) -> Channel:
    """A channel to the listener at ``address``. Raises LostError."""
    try:
        connected = socket.create_connection((address.host, address.port), CONNECT_S)
    except OSError as error:
        raise LostError(f"{address.host}:{address.port}: {error}") from None
    return Channel(connected).authenticate(secret, asked_first=True)


def _limit_silence(connected: socket.socket, seconds: int) -> None:
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000),
    ):
        connected.setsockopt(level, option, value)
    # These limit a read or a write when the peer's kernel answers and its program does not.
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))


def _lost(error: EOFError | OSError) -> LostError:
    if isinstance(error, BlockingIOError | TimeoutError):
        return LostError(f"no answer for {SILENCE_S} s")
    why = error.strerror if isinstance(error, OSError) else None
    return LostError(f"its connection ended{f' ({why})' if why else ''}")
