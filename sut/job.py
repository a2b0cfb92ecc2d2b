"""A run on the host that it is to run on: ``python -m sut.job RUN_DIR``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sut.errors import EXIT_BAD_INPUT
from sut.rundir import RunDir


def main(argv: Sequence[str] | None = None) -> int:
    """Become the run. Returns only for bad input."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1:
        print("usage: python -m sut.job RUN_DIR", file=sys.stderr)
        return EXIT_BAD_INPUT
    run_dir = RunDir(arguments[0])
    if not run_dir.plan.is_file():
        print(
            f"error: {run_dir} holds no plan.json. Run directories are made by "
            "python -m sut.submit",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    os.execv(sys.executable, [sys.executable, "-m", "sut.run", str(run_dir)])


if __name__ == "__main__":
    sys.exit(main())
