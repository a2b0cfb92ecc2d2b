"""``python -m sut.notify RUN``: run the ``--notify`` command of a run that has ended.

The last step of a job. Typed by hand, it tries a command again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut import messages
from sut.command import Parser, command_of_run
from sut.errors import EXIT_FAILED, EXIT_VALID, InputError
from sut.launch import notices
from sut.launch.options import add_runs, find_run, shared
from sut.watch import notify


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m sut.notify",
        description="Run the --notify command of a run that has ended again.",
        epilog="exit codes: 0 the command succeeded, 2 the run has none, or bad input, 3 it failed",
        examples=("latest",),
        parents=[shared("site", "root")],
    )
    add_runs(parser)
    options = parser.parse(argv)
    run_dir = find_run(options.run, options)
    if not notices.read(run_dir).command:
        raise InputError(
            f"run {run_dir.root.name} has no --notify command",
            hint="give one at submission: python -m sut.submit --notify 'COMMAND'",
        )
    if notify.send(run_dir):
        return EXIT_VALID
    hint = "what it printed, if anything, is above; the command is in"
    messages.report(f"hint: {hint} {run_dir.notices}")
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
