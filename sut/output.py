"""Standard output and standard error where they can be lost: on a full device, in a closed pipe."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO


class OutputError(Exception):
    """Standard output cannot be written, and it is the result of the command. Not an OSError, so
    that nothing takes it for one of another file."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror)
        self.errno = cause.errno


def protect(*, is_the_result: bool) -> None:
    """From now on, a write to standard error that fails is ignored; so is one to standard output
    unless it ``is_the_result``: then it raises OutputError, and the rest is ignored.

    A stream that is closed gets /dev/null, so that no file takes its place.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor
    sys.stdout = _protected(sys.stdout or os.fdopen(1, "w"), 1, raises=is_the_result)
    sys.stderr = _protected(sys.stderr or os.fdopen(2, "w"), 2, raises=False)


def is_the_result() -> None:
    """From now on, a write to standard output that fails raises OutputError."""
    raw = _raw(sys.stdout)
    if isinstance(raw, _Stream):
        raw.raises = True


def take_loss() -> str:
    """Why output was lost that is not the command's result; "" if none was since the last call. The
    reader of a pipe may close it."""
    raw = _raw(sys.stdout)
    if not isinstance(raw, _Stream) or raw.lost is None:
        return ""
    lost, raw.lost = raw.lost, None
    return "" if lost.errno == errno.EPIPE else lost.strerror or str(lost)


def _raw(stream: TextIO) -> object:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)  # python -u has no buffer


def _protected(stream: TextIO, fd: int, *, raises: bool) -> TextIO:
    raw = _raw(stream)
    if isinstance(raw, _Stream):  # of a command that called this one
        raw.raises = raw.raises and raises
    if not isinstance(raw, io.FileIO) or raw.fileno() != fd:  # e.g. a test's
        return stream
    new = _Stream(fd, raises)
    return io.TextIOWrapper(
        new if stream.buffer is raw else io.BufferedWriter(new),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=stream.buffer is raw,
    )


class _Stream(io.RawIOBase):
    def __init__(self, fd: int, raises: bool) -> None:
        self.raises = raises
        self.lost: OSError | None = None  # the first error that was ignored
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            if self.raises:
                self.raises = False
                raise OutputError(error) from None
            self.lost = self.lost or error
        return len(data)
