"""A scheduled run, held against the earlier ones of its plan: ``python -m sut.nightly [options]``.

Inside a Slurm job, like :mod:`sut.batch`, whose options it takes. Exit code: the run's, and 1 for
a run that is VALID and worse than the earlier ones by more than noise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut import batch, compare
from sut.command import command
from sut.errors import EXIT_VALID


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if batch.has_helped("sut.nightly", arguments):
        return EXIT_VALID
    run_dir, code = batch.run(arguments)
    if code != EXIT_VALID:
        return code
    return compare.main([str(run_dir), "--fail-on-regression"])


if __name__ == "__main__":
    sys.exit(main())
