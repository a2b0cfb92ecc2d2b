"""Strangers who use up a head's descriptors or threads end neither its arrivals nor its log."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from sut.serving import channel
from sut.serving.arrivals import Arrivals
from sut.serving.messages import Hello
from sut.serving.process import Address

SECRET = b"secret"
HELLO = Hello(node=1, host="127.0.0.1")


@pytest.fixture
def unhandled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What threads have raised, each of which prints a traceback into the run's log."""
    found: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda raised: found.append(raised.exc_value))
    return found


def test_strangers_use_up_the_descriptors(unhandled: list[object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        at = listener.getsockname()
        strangers = [stack.enter_context(socket.socket()) for _ in range(8)]
        before = descriptors()
        with Arrivals(listener, SECRET) as found:
            with one_descriptor():  # a handshake needs two
                for stranger in strangers:
                    stranger.connect(at)
                assert all(stranger.recv(1) == b"" for stranger in strangers)
            join(at, found)
        assert unhandled == []
        assert descriptors() == before


def test_strangers_use_up_the_threads(unhandled: list[object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Arrivals(listener, SECRET) as found:
        at = listener.getsockname()
        with no_new_threads(), socket.create_connection(at) as stranger:
            assert stranger.recv(1) == b""
        join(at, found)
    assert unhandled == []


def join(at: tuple[str, int], arrivals: Arrivals) -> None:
    """A node joins; it may have to connect more than once."""
    for _ in range(100):
        with contextlib.suppress(channel.LostError):
            node = channel.connect(Address(*at), SECRET)
            node.send(HELLO)
            break
    arrived = arrivals.next(timeout_s=30)
    assert arrived is not None and arrived[1] == HELLO
    for end in (node, arrived[0]):
        end.close()


def descriptors() -> int:
    return psutil.Process().num_fds()


@contextlib.contextmanager
def limited(kind: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@contextlib.contextmanager
def one_descriptor() -> Iterator[None]:
    """This process can open one more file."""
    taken: list[int] = []
    with limited(resource.RLIMIT_NOFILE, 256):
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            os.close(taken.pop())
            yield
        finally:
            for each in taken:
                os.close(each)


@contextlib.contextmanager
def no_new_threads() -> Iterator[None]:
    """Their stacks do not fit into this process's address space; other memory does."""
    size = psutil.Process().memory_info().vms
    before = threading.stack_size(2**30)
    try:
        with limited(resource.RLIMIT_AS, size + 2**29):
            yield
    finally:
        threading.stack_size(before)
