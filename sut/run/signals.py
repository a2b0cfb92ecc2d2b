"""The signals that end a run. The first becomes a RunError in the main thread; later ones have no
effect."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sut.errors import CANCELLED, TRUNCATED, RunError
from sut.interrupts import CTRL_C

MADV_POPULATE_READ = 22  # linux/mman.h


class Signals:
    """Once created, no signal ends the process. An early one is kept, also one from before: the
    run starts with them blocked (:func:`sut.cluster.host.wait`). ``continuing`` is the command that
    continues the run."""

    def __init__(self) -> None:
        self.continuing = ""
        self._first: RunError | None = None
        self._raising = False
        signal.signal(CTRL_C, self._take)  # before SIGTERM, whose handler shows that it may come
        # sut.job ignores SIGTERM and SIGUSR2, and children inherit that. They are meant for a run.
        signal.signal(signal.SIGTERM, self._take)
        signal.signal(signal.SIGUSR2, self._take)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._take)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT))

    @contextmanager
    def raised(self) -> Iterator[None]:
        """A context in which a signal raises its RunError at once, an earlier one at its start."""
        self._raising = True
        try:
            self._raise()
            yield
        finally:
            self._raising = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A context inside :meth:`raised` that a signal does not interrupt. The RunError is raised
        at its end."""
        self._raising = False
        try:
            yield
        finally:
            self._raising = True
        self._raise()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._first is None:
            self._first = _error(signal.Signals(number), self.continuing)
            if self._raising:
                raise self._first

    def _raise(self) -> None:
        if self._first is not None:
            raise self._first


def _error(number: signal.Signals, continuing: str) -> RunError:
    hint = f"to continue: {continuing}" if continuing else ""
    if number is signal.SIGUSR2:
        message = "stopped because the wall limit is near (SIGUSR2); finished phases are kept"
        return RunError(message, hint=hint, code=TRUNCATED)
    by_user = number in (CTRL_C, signal.SIGINT)
    name = "Ctrl-C" if by_user else f"{number.name}, which sut.cancel and scancel send"
    return RunError(f"cancelled by {name}", hint=hint, code=CANCELLED)


def keep_code_in_memory() -> None:
    """Read all mapped files, so that a signalled run survives the loss of its image.

    Slurm signals Apptainer's mount of the image too. Without the mount, code that was never read
    ends the process with SIGBUS before the record is written. No effect before Linux 5.14.
    """
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, access, *_, name = line.split(maxsplit=5)
        if access.startswith("r") and name.startswith("/"):
            start, end = (int(address, 16) for address in addresses.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_POPULATE_READ)
