"""The keys of a run's sockets: only its engines can connect to its dispatcher (ZeroMQ's CURVE).

A secret key is never in a command line, in the environment or on a network. An engine reads its key
file, whose path is in its environment; see docs/decisions/only-a-runs-engines-can-connect.md.
"""

from __future__ import annotations

import os

from sut.values import Struct

VARIABLE = "SUT_ENGINE_KEYS"  # an engine's key file; csrc/curve.h has the same name


class EngineKeys(Struct, frozen=True, kw_only=True):
    """What an engine needs to connect. Keys are text."""

    dispatcher: str  # its public key
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"EngineKeys(public={self.public!r})"


class RunKeys(Struct, frozen=True, kw_only=True):
    """The dispatcher's secret key and those of the engine of each replica."""

    secret: str
    engines: tuple[EngineKeys, ...]
    spares: tuple[tuple[EngineKeys, ...], ...] = ()  # of each replica: one for each restart

    @property
    def of_starts(self) -> tuple[tuple[EngineKeys, ...], ...]:
        """The keys of each replica's engine, by the number of its restart; 0 is its first start."""
        spares = self.spares or ((),) * len(self.engines)
        return tuple((first, *later) for first, later in zip(self.engines, spares, strict=True))

    def __repr__(self) -> str:
        return f"RunKeys({len(self.engines)} engines)"


def make(num_replicas: int, num_restarts: int = 0) -> RunKeys:
    """Keys for an engine of each replica, and others for as many restarts of it."""
    from sut import _core  # engines and their keeper do not need it

    dispatcher, secret = _core.make_key_pair()

    def of_engines(count: int) -> tuple[EngineKeys, ...]:
        pairs = [_core.make_key_pair() for _ in range(count)]
        return tuple(
            EngineKeys(dispatcher=dispatcher, public=public, secret=own) for public, own in pairs
        )

    return RunKeys(
        secret=secret,
        engines=of_engines(num_replicas),
        spares=tuple(of_engines(num_restarts) for _ in range(num_replicas)),
    )


class KeyFile:
    """A file for one engine, in memory. It ends with this process, and only processes of this user
    can open it."""

    def __init__(self, keys: EngineKeys) -> None:
        self._fd = os.memfd_create("keys")
        os.fchmod(self._fd, 0o600)
        os.write(self._fd, f"{keys.dispatcher}\n{keys.public}\n{keys.secret}\n".encode())
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: str) -> EngineKeys:
    """The keys in an engine's key file. Raises OSError, ValueError."""
    with open(path) as file:
        dispatcher, public, secret = file.read().split()
    return EngineKeys(dispatcher=dispatcher, public=public, secret=secret)
