"""Errors that a user can cause or fix, and the exit codes of every command.

0 VALID, 1 completed but INVALID or a gate failed, 2 bad input, 3 the run failed. Any other
exception is a bug in this program.
"""

from __future__ import annotations

import difflib
import errno
import shlex
from collections.abc import Iterable

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_BAD_INPUT = 2
EXIT_FAILED = 3

# Codes of runs that were ended from outside.
TRUNCATED = "truncated"  # the wall limit is near
CANCELLED = "cancelled"  # by a signal
NO_RECORD = "no_record"  # the run's process ended without a record
NODE_LOST = "node_lost"  # a node of the run, or the network to it, failed


class SutError(Exception):
    """A failure whose message is printed without a traceback.

    ``hint`` is what to do next, with a command that can be pasted; it is printed on the line after
    the message. ``code`` is its name in the record, e.g. ``engine_died``.
    """

    exit_code = EXIT_FAILED
    code = "failed"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)
        self.message, self.hint = message, hint
        if code is not None:
            self.code = code


class InputError(SutError):
    """Bad input, found before anything starts."""

    exit_code = EXIT_BAD_INPUT
    code = "bad_input"


class Errors(list[InputError]):
    """Bad input, collected to be reported at once."""

    def add(self, message: str, *, hint: str = "") -> None:
        self.append(InputError(message, hint=hint))

    def raise_all(self) -> None:
        """Raise one InputError that lists all errors; return if there are none. Consecutive ones
        with the same hint share it."""
        if self:
            following = [*self[1:], None]
            texts = [
                each.message if after is not None and after.hint == each.hint else str(each)
                for each, after in zip(self, following, strict=True)
            ]
            raise InputError("\nerror: ".join(texts))


class RunError(SutError):
    """The run could not finish. ``replica`` and ``node`` (a name) are the cause; None where no
    single one is."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str = "",
        replica: int | None = None,
        node: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.replica = replica
        self.node = node


def other_folder(cause: int | None, option: str) -> str:
    """The hint for a folder that could not be written for ``cause``, an errno. ``option`` is the
    option for another folder."""
    if cause in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space, or use another folder: {option}"
    return f"use a folder that you can write to: {option}"


def quoted(value: object) -> str:
    """A value as one word of a shell, for a command that can be pasted."""
    return shlex.quote(str(value))


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` if ``word`` resembles a known one, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
