"""A channel between two nodes: JSON messages over a TCP connection, both ends knowing a secret.

Framing and authentication are the standard library's (:mod:`multiprocessing.connection`); its
pickling is not used. No call waits longer than :data:`SILENCE_S`. The kernel itself ends a
connection whose other machine answers nothing for so long, so a power cut or a cut link is
noticed even while Python is busy.
"""

from __future__ import annotations

import os
import socket
import struct
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any, TypeVar

import msgspec

from sut.serving.process import Address

SILENCE_S = 10
CONNECT_S = 3
MAX_MESSAGE_BYTES = 2**24

_T = TypeVar("_T")


class LostError(Exception):
    """The other end is gone, does not answer, or is a stranger. The channel is of no more use."""


class Channel:
    """One end. Used by one thread at a time."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        self._socket = connected
        self._connection: Connection[Any, Any] = Connection(os.dup(connected.fileno()))

    @property
    def local_host(self) -> str:
        """The address of this end."""
        host: str = self._socket.getsockname()[0]
        return host

    def send(self, message: msgspec.Struct) -> None:
        """Raises LostError."""
        self.send_bytes(msgspec.json.encode(message))

    def send_bytes(self, content: bytes) -> None:
        """Raises LostError."""
        try:
            self._connection.send_bytes(content)
        except OSError as error:
            raise _lost(error) from None

    def receive(self, decoder: msgspec.json.Decoder[_T]) -> _T:
        """The next message. Raises LostError, also for one that ``decoder`` can't read."""
        try:
            return decoder.decode(self.receive_bytes())
        except msgspec.MsgspecError as error:
            raise LostError(f"it sent what can't be read: {error}") from None

    def receive_bytes(self) -> bytes:
        """Raises LostError."""
        try:
            return self._connection.recv_bytes(MAX_MESSAGE_BYTES)
        except (EOFError, OSError) as error:
            raise _lost(error) from None

    def poll(self, timeout_s: float) -> bool:
        """Whether something is there to receive, the connection's end too."""
        try:
            return self._connection.poll(timeout_s)
        except OSError as error:
            raise _lost(error) from None

    def close(self) -> None:
        self._connection.close()
        self._socket.close()

    def authenticate(self, secret: bytes, *, asked_first: bool) -> Channel:
        """Each end shows the other that it knows the secret. Raises LostError."""
        turns = [answer_challenge, deliver_challenge]
        _limit_silence(self._socket, CONNECT_S)
        try:
            for turn in turns if asked_first else reversed(turns):
                turn(self._connection, secret)
        # Python 3.11 asserts that it is asked a challenge.
        except (AuthenticationError, AssertionError, EOFError, OSError) as error:
            self.close()
            raise LostError(f"it does not know the secret of this run: {error}") from None
        _limit_silence(self._socket, SILENCE_S)
        return self


def listen(host: str) -> socket.socket:
    """A socket that waits for channels on a port the system chooses. Raises OSError."""
    return socket.create_server((host, 0))


def accept(listener: socket.socket, secret: bytes, timeout_s: float) -> Channel | None:
    """The next channel, or None when none came in time. Whoever does not know the secret is
    sent away."""
    listener.settimeout(timeout_s)
    try:
        connected, _ = listener.accept()
    except TimeoutError:
        return None
    try:
        return Channel(connected).authenticate(secret, asked_first=False)
    except LostError:
        return None


def connect(address: Address, secret: bytes) -> Channel:
    """A channel to whoever listens at ``address``. Raises LostError."""
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
    # For a read or a write of a peer that answers the kernel's probes and nothing else.
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))


def _lost(error: EOFError | OSError) -> LostError:
    if isinstance(error, BlockingIOError | TimeoutError):
        return LostError(f"it did not answer for {SILENCE_S} s")
    why = error.strerror if isinstance(error, OSError) else None
    return LostError(f"its connection ended{f' ({why})' if why else ''}")
