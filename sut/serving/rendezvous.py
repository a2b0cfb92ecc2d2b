"""How the nodes of a job find their head: by a file on the file system they share.

It is named by the attempt of the job, so one that an earlier attempt left is never read, and only
its owner can read it: it holds the secret that both ends of a channel must know.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sut.rundir import write_atomic
from sut.serving import channel
from sut.serving.channel import Channel, LostError
from sut.serving.process import Address
from sut.values import Struct

POLL_S = 0.25


class Rendezvous(Struct, frozen=True, kw_only=True):
    """Where the head listens, and the secret it asks for."""

    address: Address
    secret: str


@contextlib.contextmanager
def opened(path: Path, host: str) -> Iterator[tuple[socket.socket, bytes]]:
    """Listen on ``host`` and tell so in the file ``path``, both until the context ends. Gives the
    listening socket and the secret. Raises OSError."""
    secret = secrets.token_hex(32)
    with channel.listen(host) as listener:
        address = Address(host, listener.getsockname()[1])
        write_atomic(
            path, msgspec.json.encode(Rendezvous(address=address, secret=secret)), mode=0o600
        )
        try:
            yield listener, secret.encode()
        finally:
            path.unlink(missing_ok=True)


def find(path: Path, timeout_s: float) -> Channel | None:
    """A channel to the head that ``path`` tells of, or None when there was none in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = _read(path)
        if found is not None:
            with contextlib.suppress(LostError):  # a head that is gone; another may come
                return channel.connect(found.address, found.secret.encode())
        time.sleep(POLL_S)
    return None


def _read(path: Path) -> Rendezvous | None:
    # NFS remembers for a while that a file was not there; reading the folder makes it look again.
    try:
        if path.name not in {entry.name for entry in path.parent.iterdir()}:
            return None
        return msgspec.json.decode(path.read_bytes(), type=Rendezvous)
    except (OSError, msgspec.MsgspecError):
        return None
