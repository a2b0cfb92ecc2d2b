"""What commands have in common: a user's mistake, a reader that has left, a run directory."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import ParamSpec

from sut.errors import SutError
from sut.rundir import RunDir

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


def run_dir_of(argv: Sequence[str] | None, module: str, description: str) -> RunDir:
    """The one argument of a command that takes a run directory. Exits on --help and mistakes."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="as python -m sut.submit makes them")
    return RunDir(parser.parse_args(argv).run_dir)
