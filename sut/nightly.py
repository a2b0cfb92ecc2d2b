"""A run that is compared with the earlier runs of its plan: ``python -m sut.nightly [options]``.

Runs inside a Slurm job and takes the options of :mod:`sut.batch`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut import batch, compare
from sut.command import command_of_run
from sut.errors import EXIT_VALID

ABOUT = (
    "Run on every node of this Slurm job, then compare the run with the earlier runs of its plan; "
    "a VALID run that is worse by more than noise exits with 1. slurm/nightly.sh calls it."
)
EXAMPLES = ("--scenario server",)


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    options = batch.options("nightly", ABOUT, EXAMPLES, argv)
    run_dir, code = batch.run(options, "nightly.sh")
    if code != EXIT_VALID:
        return code
    return compare.main([str(run_dir), "--fail-on-regression"])


if __name__ == "__main__":
    sys.exit(main())
