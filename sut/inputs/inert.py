"""What a pickle's names are replaced by: objects that do nothing."""

from __future__ import annotations

from typing import Any


class UnknownError(Exception):
    """A layout that is not read, or a damaged one."""


class Inert:
    """An object of a pickle: what it was made of, and its state."""

    def __init__(self, *args: Any, **_: object) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    __hash__ = None  # type: ignore[assignment]  # as a key it would have no equal


class Word(Inert):
    """A type that is named and not used."""


class Column(Inert):
    """What has a list of values."""

    def values(self) -> list[Any]:
        """Raises UnknownError."""
        raise NotImplementedError
