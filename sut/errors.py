"""Errors a user can cause or mend. Each carries what, where and the next command.

Exit codes are the command line's: 0 VALID, 1 ran but INVALID or failed its gate,
2 bad input, 3 the run failed. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_BAD_INPUT = 2
EXIT_FAILED = 3

# Codes of runs that were stopped from outside: by the wall limit, which is near, or by a signal.
TRUNCATED = "truncated"
CANCELLED = "cancelled"
NODE_LOST = "node_lost"  # a node of the run, or the network to it, was gone


class SutError(Exception):
    """A failure with a message fit to print: no traceback is shown for it."""

    exit_code = EXIT_FAILED
    code = "failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InputError(SutError):
    """Bad input, found before anything was started."""

    exit_code = EXIT_BAD_INPUT
    code = "bad_input"


class RunError(SutError):
    """The run could not finish. ``code`` is a word for the record, e.g. ``engine_died``;
    ``replica`` and ``node`` (its name) are the ones to blame, None where there is no single one."""

    def __init__(
        self, message: str, *, code: str, replica: int | None = None, node: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.replica = replica
        self.node = node
