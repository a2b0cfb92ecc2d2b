"""What every command does with a user's mistake, and with a reader that has left."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

from sut.errors import SutError

# As the shell says of a program that the signal ended.
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE
EXIT_INTERRUPTED = 128 + signal.SIGINT

_P = ParamSpec("_P")


def command(main: Callable[_P, int]) -> Callable[_P, int]:
    """The same ``main``, which prints a SutError and returns its exit code, and which ends in
    silence on Ctrl-C, or where its output is read no further: ``... | head``."""

    @functools.wraps(main)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> int:
        try:
            code = main(*args, **kwargs)
            sys.stdout.flush()
        except SutError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # What is still buffered would fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_BROKEN_PIPE
        return code

    return run
