"""``python -m sut.notify RUN_DIR``: run the ``--notify`` command of a run that has ended.

The last step of a job. Typed by hand, it tries a command again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut.command import command, run_dir_of
from sut.errors import EXIT_VALID
from sut.watch import notify


@command
def main(argv: Sequence[str] | None = None) -> int:
    notify.send(run_dir_of(argv, "sut.notify", "Run the --notify command of a run again."))
    return EXIT_VALID


if __name__ == "__main__":
    sys.exit(main())
