"""The signals that end a run. The first becomes a RunError in the main thread; later ones, and the
same one again, change nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sut.errors import CANCELLED, TRUNCATED, RunError


class Signals:
    """From its making on no signal ends the process; one that comes early is kept."""

    def __init__(self) -> None:
        self._first: RunError | None = None
        self._heeding = False
        # sut.job starts us with SIGTERM and SIGUSR2 ignored, for what stands between; they are
        # meant for us.
        signal.signal(signal.SIGTERM, self._take)
        signal.signal(signal.SIGUSR2, self._take)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._take)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Inside, a signal raises its RunError at once; before and after it does not."""
        self._heeding = True
        try:
            self._raise()
            yield
        finally:
            self._heeding = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside :meth:`heeded`: what must not be left half done. The RunError comes after it."""
        self._heeding = False
        try:
            yield
        finally:
            self._heeding = True
        self._raise()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._first is None:
            self._first = _error(signal.Signals(number))
            if self._heeding:
                raise self._first

    def _raise(self) -> None:
        if self._first is not None:
            raise self._first


def _error(number: signal.Signals) -> RunError:
    if number is signal.SIGUSR2:
        return RunError(
            "the wall limit is near, so the run stopped (SIGUSR2). What is done is kept: submit "
            "the same run directory again and it goes on with the phase that was cut off",
            code=TRUNCATED,
        )
    return RunError(f"cancelled by {number.name}", code=CANCELLED)
