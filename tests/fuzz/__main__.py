"""Fuzz one target under atheris: ``PYTHONPATH=tests python -m fuzz TARGET [OPTION OF LIBFUZZER]
[FOLDER OF INPUTS]...``."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["sut", "yaml", "json", "multiprocessing.connection"]):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
