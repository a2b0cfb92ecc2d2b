# PYTHON_ARGCOMPLETE_OK
"""The console script ``sut``: ``sut COMMAND ...`` is ``python -m sut.COMMAND ...``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from importlib import metadata

from argcomplete.shell_integration import shellcode

from sut.command import COMPLETING, Parser, command
from sut.errors import EXIT_BAD_INPUT, EXIT_VALID

COMMANDS = {
    "submit": "run a benchmark or a campaign, here or as a Slurm job",
    "watch": "follow a run",
    "doctor": "check the nodes of a site; start no engine",
    "verdict": "explain a verdict; takes any LoadGen log folder",
    "report": "write the report of a run again",
    "history": "list all runs",
    "compare": "show what differs between runs and whether it exceeds the noise",
    "campaign": "compare the runs of a campaign",
    "package": "build a submission for MLCommons",
    "assets": "download the model and data for a machine without a network",
}


@command
def main() -> int:
    words = _completed_words() if COMPLETING in os.environ else sys.argv[1:]
    name = words[0] if words else ""
    if name in COMMANDS:
        return _main_of(name)(words[1:])
    if name and not name.startswith("-"):
        return _unknown(name)
    parser = _parser()
    shell = parser.parse(words).completion
    if shell:
        print(shellcode(["sut"], shell=shell))
        return EXIT_VALID
    parser.print_help(sys.stderr)
    return EXIT_BAD_INPUT


def _main_of(name: str) -> Callable[[list[str]], int]:
    module = importlib.import_module(f"sut.{name}")
    if hasattr(module, "__path__"):  # a package
        module = importlib.import_module(f"sut.{name}.__main__")
    found: Callable[[list[str]], int] = module.main
    return found


def _unknown(name: str) -> int:
    nearest = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean: sut {nearest[0]}" if nearest else "for all commands: sut --help"
    print(f"error: unknown command: {name}\nhint: {hint}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _parser() -> Parser:
    parser = Parser(
        prog="sut",
        usage="sut COMMAND [OPTIONS]",
        description="Run MLPerf Inference on vLLM; judge, compare and package the results.",
        epilog="For the options and exit codes of a command: sut COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"sut {_version()}")
    parser.add_argument(
        "--completion",
        choices=("bash", "zsh"),
        help='print completion code for a shell: eval "$(sut --completion bash)"',
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, line in COMMANDS.items():
        commands.add_parser(name, help=line)
    return parser


def _version() -> str:
    try:
        return metadata.version("mlperf-sut")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _completed_words() -> list[str]:
    """The words after ``sut`` and before the cursor. Argcomplete's variable counts the words of the
    program's name: a command's parser needs one more."""
    from argcomplete.lexers import split_line

    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    num_skipped = int(os.environ[COMPLETING])
    words: list[str] = split_line(line, point)[3][num_skipped:]
    if words:
        os.environ[COMPLETING] = str(num_skipped + 1)
    return words


if __name__ == "__main__":
    sys.exit(main())
