"""A run on one node: ``python -m sut.job RUN_DIR``, once on every node of a job."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut.command import command_of_run, run_dir_of
from sut.errors import quoted
from sut.launch import node


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    description = "Start a run on this node of its job and wait until it has finished."
    run_dir = run_dir_of(argv, "sut.job", description)
    if sys.stderr.isatty():  # typed, not in a job
        print(f"to follow it: python -m sut.watch {quoted(run_dir)}", file=sys.stderr, flush=True)
    return node.run(run_dir)


if __name__ == "__main__":
    sys.exit(main())
