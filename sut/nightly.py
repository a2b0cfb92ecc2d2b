"""A run that is compared with the earlier runs of its plan: ``python -m sut.nightly [options]``.

Runs inside a Slurm job and takes the options of :mod:`sut.batch`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut import batch, compare
from sut.command import command
from sut.errors import EXIT_VALID

HELP = """\
Run on every node of this Slurm job, then compare the run with the earlier runs of its plan.
slurm/nightly.sh calls it.

exit codes: those of python -m sut.submit; also 1 if a VALID run is worse by more than noise"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if batch.print_help_if_asked("sut.nightly", arguments, HELP):
        return EXIT_VALID
    run_dir, code = batch.run(arguments)
    if code != EXIT_VALID:
        return code
    return compare.main([str(run_dir), "--fail-on-regression"])


if __name__ == "__main__":
    sys.exit(main())
