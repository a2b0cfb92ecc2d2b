"""A process of another user that knows every port of a run and none of its secrets."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import resource
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec
import psutil
import zmq

NOBODY = 65534
HELLO = msgspec.msgpack.encode({"status": "HELLO", "local": False, "headless": True})
READY = msgspec.msgpack.encode({"status": "READY", "local": False, "headless": True})
# A ZMTP greeting and the header of a frame of 1 GiB.
GIB_FRAME = (
    b"\xff\0\0\0\0\0\0\0\1\x7f\3\0" + b"NULL".ljust(52, b"\0") + b"\2" + (2**30).to_bytes(8, "big")
)


def ports_of(pid: int) -> list[int]:
    """The TCP ports that a process listens on."""
    connections = psutil.Process(pid).net_connections("tcp")
    return sorted(each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN)


@contextmanager
def stranger(ports: list[int], files: list[Path]) -> Iterator[Connection[Any, Any]]:
    """Attacks ``ports`` and tries to read ``files`` until the end of the context. Then, after
    sending anything, the connection yields what it learned, as a list of texts."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_attack, args=(ports, files, theirs), daemon=True)
    process.start()
    assert ours.poll(60) and ours.recv() == "started"
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def _attack(ports: list[int], files: list[Path], end: Connection[Any, Any]) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    learned: list[str] = []
    for file in files:
        with contextlib.suppress(OSError):
            file.read_bytes()
            learned.append(f"read {file}")
    with zmq.Context() as context:
        sockets = [_talk(context, port) for port in ports]
        for port in ports:
            _push_a_gibibyte(port)
        end.send("started")
        while not end.poll(0.1):
            for each in (each for three in sockets for each in three):
                with contextlib.suppress(zmq.Again):
                    # As an engine would: HELLO, a ready response, outputs and its death.
                    for message in (HELLO, READY, b"\x90\x90", b"ENGINE_CORE_DEAD"):
                        each.send(message, zmq.DONTWAIT)
                if each.type == zmq.DEALER and each.poll(0):
                    learned.append(f"received {each.recv()!r}")
        context.destroy(linger=0)
    end.send(learned)


def _talk(context: zmq.Context[Any], port: int) -> list[zmq.Socket[bytes]]:
    """Connections like those of an engine without keys, and of one with keys of its own."""
    found = []
    for kind in (zmq.DEALER, zmq.PUSH, zmq.DEALER):
        each = context.socket(kind)
        each.set(zmq.SNDHWM, 100)
        if len(found) == 2:
            server, _ = zmq.curve_keypair()
            each.curve_publickey, each.curve_secretkey = zmq.curve_keypair()
            each.curve_serverkey = server
        if kind == zmq.DEALER:
            each.set(zmq.IDENTITY, b"\0\0")
        each.connect(f"tcp://127.0.0.1:{port}")
        found.append(each)
    return found


@contextmanager
def crowd(ports: list[int], size: int) -> Iterator[None]:
    """``size`` connections that say nothing. The oldest is replaced again and again."""
    context = multiprocessing.get_context("fork")
    full = context.Event()
    process = context.Process(target=_crowd, args=(ports, size, full), daemon=True)
    process.start()
    try:
        assert full.wait(60)
        yield
    finally:
        process.kill()
        process.join()


def _crowd(ports: list[int], size: int, full: Event) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: deque[socket.socket] = deque()
    for port in itertools.cycle(ports):
        connecting = socket.socket()
        connecting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connecting.connect(("127.0.0.1", port))
        found.append(connecting)
        if len(found) == size:
            full.set()
            found.popleft().close()
            time.sleep(0.0005)


def _push_a_gibibyte(port: int) -> None:
    chunk = bytes(2**20)
    with contextlib.suppress(OSError), socket.socket() as pushing:
        pushing.settimeout(5)
        pushing.connect(("127.0.0.1", port))
        pushing.sendall(GIB_FRAME)
        for _ in range(2**10):
            pushing.sendall(chunk)
