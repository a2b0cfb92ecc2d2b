"""Find the highest VALID load: ``python -m sut.tune --scenario server``.

A run of its own kind, submitted like any other (:mod:`sut.submit`): :mod:`sut.run.tune` searches on
one start of the engines, and the last performance phase is the run's result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut import interrupts
from sut.command import command_of_run
from sut.launch import run_options
from sut.submit import run


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    with interrupts.at_once():
        arguments = run_options.parse_tune(argv)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
