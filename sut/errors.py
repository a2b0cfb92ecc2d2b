"""Errors that a user can cause or fix, and the exit codes of every command.

0 VALID, 1 completed but INVALID or a gate failed, 2 bad input, 3 the run failed. Any other
exception is a bug of ours.
"""

from __future__ import annotations

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_BAD_INPUT = 2
EXIT_FAILED = 3

# Codes of runs that ended from outside.
TRUNCATED = "truncated"  # the wall limit is near
CANCELLED = "cancelled"  # by a signal
NODE_LOST = "node_lost"  # a node of the run, or the network to it, failed


class SutError(Exception):
    """A failure with a message fit to print: no traceback is shown for it.

    ``hint`` says what to do next, with a command that can be pasted; it follows the message on a
    line of its own. ``code`` is a word for the record, e.g. ``engine_died``.
    """

    exit_code = EXIT_FAILED
    code = "failed"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)
        if code is not None:
            self.code = code


class InputError(SutError):
    """Bad input, found before anything started."""

    exit_code = EXIT_BAD_INPUT
    code = "bad_input"


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
