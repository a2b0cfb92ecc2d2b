"""``python -m sut.validate FILE...``: check benchmark, site and campaign files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut import messages
from sut.command import Parser, a_path, command
from sut.errors import EXIT_BAD_INPUT, EXIT_VALID, InputError
from sut.launch import files


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m sut.validate",
        description="Check files: print what each is, or every error in it with its line.",
        epilog="exit codes: 0 all are valid, 2 an error",
        examples=("mine.yaml", "configs/*/*.yaml"),
    )
    parser.add_argument(
        "files", nargs="+", type=a_path, metavar="FILE", help="a benchmark, a site or a campaign"
    )
    code = EXIT_VALID
    for path in parser.parse(argv).files:
        try:
            print(files.check(path))
        except InputError as error:
            messages.report(f"error: {error}")
            code = EXIT_BAD_INPUT
    return code


if __name__ == "__main__":
    sys.exit(main())
