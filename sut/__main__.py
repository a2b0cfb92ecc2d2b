"""The console script ``sut``: ``sut COMMAND ...`` is ``python -m sut.COMMAND ...``."""

from __future__ import annotations

import importlib
import sys

COMMANDS = (
    *("submit", "watch", "doctor", "campaign"),
    *("verdict", "report", "history", "compare", "package"),
)


def main() -> int:
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if command not in COMMANDS:
        print(f"usage: sut {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 0 if command in ("-h", "--help") else 2
    module = importlib.import_module(f"sut.{command}")
    if hasattr(module, "__path__"):  # a package
        module = importlib.import_module(f"sut.{command}.__main__")
    code: int = module.main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
