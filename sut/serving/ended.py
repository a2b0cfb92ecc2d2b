"""How the kept engines of this machine ended: the last end of each keeper, beside its socket."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import msgspec

from sut.inputs import cache
from sut.rundir import write_atomic
from sut.serving import registry
from sut.values import UNDECODABLE, Struct

SUFFIX = ".ended"
FORGET = timedelta(days=1)


class Ended(Struct, frozen=True, kw_only=True):
    """``why`` completes "ended: ..."."""

    keeper: str
    what: str  # the engines served, for people
    ended_utc: str  # ISO 8601, with Z
    why: str


def note(end: Ended) -> None:
    """Replace what is known of the keeper's earlier end. Raises OSError."""
    write_atomic(registry.folder() / f"{end.keeper}{SUFFIX}", msgspec.json.encode(end))


def forget(keeper: str) -> None:
    """A keeper with this id lives again. Raises OSError."""
    (registry.folder() / f"{keeper}{SUFFIX}").unlink(missing_ok=True)


def all_recent() -> list[Ended]:
    """The ends of the last :data:`FORGET`, oldest first. Older ones are removed."""
    found = []
    for file in registry.folder().glob(f"*{SUFFIX}"):
        try:
            end = msgspec.json.decode(cache.read_own(file), type=Ended)
            age = datetime.now(UTC) - datetime.fromisoformat(end.ended_utc)
        except (OSError, ValueError, TypeError, *UNDECODABLE):
            continue
        if age <= FORGET:
            found.append(end)
        else:
            with contextlib.suppress(OSError):
                file.unlink()
    return sorted(found, key=lambda end: end.ended_utc)


def of(keeper: str) -> Ended | None:
    """The end of a keeper, if it was recent."""
    return next((end for end in all_recent() if end.keeper == keeper), None)
