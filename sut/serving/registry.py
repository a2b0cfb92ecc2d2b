"""Where the keepers of engines are found: one socket each, in a folder of this user and machine.

A keeper is alive while its socket accepts connections. Nothing else says so, so nothing becomes
stale: whoever finds a socket that refuses a connection removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from sut.inputs import cache

SUFFIX = ".sock"
LOCK = "lock"
ANSWER_S = 10


def folder() -> Path:
    """The registry's folder. It may not exist. A login's own folder, XDG_RUNTIME_DIR, would be
    deleted at its end. A home folder may be shared by machines."""
    return cache.user_cache_dir() / "engines" / os.uname().nodename


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Exclude other processes that add or remove keepers. Raises OSError, also for a folder that
    other users can enter."""
    path = folder()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "other users can use this folder", str(path))
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def ids() -> list[str]:
    """The keepers that have a socket, alive or not."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder().glob(f"*{SUFFIX}"))


def path_of(keeper: str) -> Path:
    return folder() / f"{keeper}{SUFFIX}"


def listen(keeper: str) -> socket.socket:
    """The listening socket of a new keeper. Call it :func:`locked`. Raises OSError, FileExistsError
    where that keeper is alive."""
    if _may_live(keeper):
        raise FileExistsError(errno.EEXIST, "in use", str(path_of(keeper)))
    path_of(keeper).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path_of(keeper)) as address:
            listener.bind(address)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def connect(keeper: str) -> socket.socket | None:
    """A connection to a keeper; None where there is none. Raises OSError, also for a keeper that
    does not accept connections."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    limit_silence(connected)
    try:
        with _short(path_of(keeper)) as address:
            connected.connect(address)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connected.close()
        return None
    except BaseException:
        connected.close()
        raise
    return connected


def forget_dead() -> None:
    """Remove the sockets of keepers that are not alive. Raises OSError."""
    for keeper in ids():
        if not _may_live(keeper):
            with locked():
                if not _may_live(keeper):  # another process may have started a new one meanwhile
                    path_of(keeper).unlink(missing_ok=True)


def _may_live(keeper: str) -> bool:
    try:
        connected = connect(keeper)
    except OSError:
        return True
    if connected is not None:
        connected.close()
    return connected is not None


def limit_silence(connected: socket.socket) -> None:
    """Let no call on this socket wait longer than :data:`ANSWER_S`."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", ANSWER_S, 0))


def pid_of(connected: socket.socket) -> int:
    """The process at the other end."""
    size = struct.calcsize("3i")
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address for ``path``, of which a socket's may have only 107 bytes."""
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{parent}/{path.name}"
    finally:
        os.close(parent)
