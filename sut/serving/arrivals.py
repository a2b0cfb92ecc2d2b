"""The connections to the head while nodes join: :class:`Arrivals`."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from types import TracebackType

from sut.serving.channel import Channel, LostError
from sut.serving.messages import HELLO, Hello

ACCEPT_S = 0.25
PAUSE_S = 0.02  # after a connection that cannot be accepted
MAX_AT_ONCE = 64  # beyond that the oldest handshake is ended


class Arrivals:
    """A context that accepts the connections to ``listener``.

    Each proves the secret on a thread of its own and within its own time, so that one that takes
    long delays no other.
    """

    def __init__(self, listener: socket.socket, secret: bytes) -> None:
        self._listener = listener
        self._secret = secret
        self._arrived: queue.SimpleQueue[tuple[Channel, Hello]] = queue.SimpleQueue()
        self._pending: list[socket.socket] = []  # the oldest first
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="arrivals", daemon=True)

    def __enter__(self) -> Arrivals:
        self._listener.settimeout(ACCEPT_S)
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _where: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def next(self, timeout_s: float) -> tuple[Channel, Hello] | None:
        """The next node's channel and its first message; None for a timeout."""
        with contextlib.suppress(queue.Empty):
            return self._arrived.get(timeout=timeout_s)
        return None

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connected, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # it ended already, or strangers use up the file descriptors
                self._ended.wait(PAUSE_S)
                continue
            try:
                threading.Thread(target=self._greet, args=(connected,), daemon=True).start()
            except RuntimeError:  # they use up the threads
                connected.close()

    def _greet(self, connected: socket.socket) -> None:
        with self._lock:
            self._pending.append(connected)
            if len(self._pending) > MAX_AT_ONCE:
                with contextlib.suppress(OSError):
                    self._pending.pop(0).shutdown(socket.SHUT_RDWR)
        channel: Channel | None = None
        try:
            channel = Channel(connected)
            channel.authenticate(self._secret, asked_first=False)
            self._arrived.put((channel, channel.receive(HELLO)))
        # A node connects again, also where no descriptor or thread was left.
        except (LostError, OSError, RuntimeError):
            (channel or connected).close()
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._pending.remove(connected)
