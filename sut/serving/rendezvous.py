"""How the nodes of a job find their head: a file on the file system they share.

The file is named by the attempt of the job, so no attempt reads an earlier one's. Only its owner
can read it: it contains the secrets of the run, which are never sent over the network.
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
from sut.serving.arrivals import Arrivals
from sut.serving.channel import Channel, LostError
from sut.serving.keys import EngineKeys
from sut.serving.process import Address
from sut.values import UNDECODABLE, Struct

POLL_S = 0.25


class Rendezvous(Struct, frozen=True, kw_only=True):
    """The head's address, the secret of its channels, and the keys of each replica's engine, by the
    number of its restart."""

    address: Address
    secret: str
    keys: tuple[tuple[EngineKeys, ...], ...]


@contextlib.contextmanager
def opened(path: Path, host: str, keys: tuple[tuple[EngineKeys, ...], ...]) -> Iterator[Arrivals]:
    """A context that listens on ``host`` and writes the address to ``path``. Raises OSError."""
    secret = secrets.token_hex(32)
    with socket.create_server((host, 0)) as listener:
        address = Address(host, listener.getsockname()[1])
        found = Rendezvous(address=address, secret=secret, keys=keys)
        write_atomic(path, msgspec.json.encode(found), mode=0o600)
        try:
            with Arrivals(listener, secret.encode()) as arrivals:
                yield arrivals
        finally:
            path.unlink(missing_ok=True)


def find(path: Path, timeout_s: float) -> tuple[Channel, tuple[tuple[EngineKeys, ...], ...]] | None:
    """A channel to the head at the address in ``path``, and the engines' keys; None for a
    timeout."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = _read(path)
        if found is not None:
            with contextlib.suppress(LostError):  # that head is gone; another may start
                return channel.connect(found.address, found.secret.encode()), found.keys
        time.sleep(POLL_S)
    return None


def _read(path: Path) -> Rendezvous | None:
    # NFS caches that a file is missing. Reading the folder refreshes that.
    try:
        if path.name not in {entry.name for entry in path.parent.iterdir()}:
            return None
        return msgspec.json.decode(path.read_bytes(), type=Rendezvous)
    except (OSError, *UNDECODABLE):
        return None
