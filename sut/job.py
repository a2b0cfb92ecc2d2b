"""A run on the host that it is to run on: ``python -m sut.job RUN_DIR``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from sut.errors import EXIT_BAD_INPUT
from sut.rundir import RunDir


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Become the run."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1:
        _refuse("usage: python -m sut.job RUN_DIR")
    run_dir = RunDir(arguments[0])
    if not run_dir.plan.is_file():
        _refuse(
            f"error: {run_dir} holds no plan.json. Run directories are made by python -m sut.submit"
        )
    os.execv(sys.executable, [sys.executable, "-m", "sut.run", str(run_dir)])


def launch(run_dir: str) -> int:
    """What submitit pickles and runs in its job: :func:`main` in a process of its own.

    Returns its exit code. submitit's process lives beside it and ignores SIGTERM; the run takes
    the signal itself and ends with a record.
    """
    return subprocess.call([sys.executable, "-m", "sut.job", run_dir])


def _refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
