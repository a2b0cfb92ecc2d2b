"""The console script ``sut``: ``sut COMMAND ...`` is ``python -m sut.COMMAND ...``."""

from __future__ import annotations

import sys

COMMANDS = ("submit", "watch", "history", "compare", "report", "verdict", "package")


def main() -> int:
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    match command:
        case "submit":
            from sut import submit

            return submit.main(arguments)
        case "watch":
            from sut import watch

            return watch.main(arguments)
        case "history":
            from sut import history

            return history.main(arguments)
        case "compare":
            from sut import compare

            return compare.main(arguments)
        case "report":
            from sut import report

            return report.main(arguments)
        case "verdict":
            from sut import verdict

            return verdict.main(arguments)
        case "package":
            from sut import package

            return package.main(arguments)
        case _:
            print(f"usage: sut {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
            return 0 if command in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
