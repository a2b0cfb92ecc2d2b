"""Ctrl-C and SIGTERM at a command that has started something which must not be left half done."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)
CTRL_C = signal.SIGUSR1  # to a run that ignores the terminal's: its follower got Ctrl-C


class Interrupt:
    """A context in which Ctrl-C and SIGTERM only set ``asked`` and, the first time, ``number``.
    No exception interrupts the work between two looks at it, and none can be lost in code that
    ignores exceptions."""

    def __init__(self) -> None:
        self.asked = False
        self.number = signal.SIGINT

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._ask) for number in NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def for_run(self) -> signal.Signals:
        """The signal that cancels a run on this machine; it shows which of the two came."""
        return CTRL_C if self.number == signal.SIGINT else signal.SIGTERM

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.number = signal.Signals(number)
        self.asked = True


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Ctrl-C ends the process in this context, which creates nothing. As an exception it could be
    lost in a library that ignores all of them."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Ctrl-C reaches this process after the context, and programs started in it never."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
