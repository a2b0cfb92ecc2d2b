# PYTHON_ARGCOMPLETE_OK
"""The console script ``sut``: ``sut COMMAND ...`` is ``python -m sut.COMMAND ...``."""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

from argcomplete.shell_integration import shellcode

from sut import interrupts, messages
from sut.command import COMPLETING, Parser, command
from sut.errors import EXIT_BAD_INPUT, EXIT_VALID
from sut.machine.checkout import ROOT


class Command(NamedTuple):
    """``example`` is a command line for a shell."""

    line: str
    example: str


GROUPS = {
    "set up": {
        "init": Command("write a site file for this machine or cluster", "sut init"),
        "validate": Command("check a benchmark, site or campaign file", "sut validate mine.yaml"),
        "list": Command("list benchmarks, sites, scenarios and keys", "sut list keys qps"),
        "doctor": Command("check the nodes of a site; start no engine", "sut doctor --site mine"),
        "assets": Command(
            "download the model and data for a machine without a network", "sut assets FOLDER"
        ),
        "convert": Command(
            "convert a pre-tokenized data set of MLCommons", "sut convert FILE.pkl FILE.jsonl"
        ),
    },
    "run": {
        "submit": Command(
            "run a benchmark or a campaign, here or as a Slurm job", "sut submit --scenario server"
        ),
        "simulate": Command(
            "what a run would give, before a node is booked",
            "sut simulate --gpu a30 --replicas 1,2",
        ),
        "tune": Command("find the highest VALID load", "sut tune --scenario server"),
        "watch": Command("follow a run", "sut watch latest"),
        "cancel": Command("end a run", "sut cancel latest"),
        "notify": Command("run the --notify command of a run again", "sut notify latest"),
        "engines": Command(
            "list or stop the engines kept for the next run", "sut engines stop --all"
        ),
        "batch": Command(
            "run inside a Slurm job", "sbatch slurm/multi.sh --scenario offline --mode all"
        ),
        "nightly": Command(
            "run inside a Slurm job; fail on a regression", "sbatch slurm/nightly.sh"
        ),
    },
    "look at results": {
        "history": Command("list all runs", "sut history --scenario server --since 7d"),
        "verdict": Command("explain a verdict; takes any LoadGen log folder", "sut verdict latest"),
        "score": Command(
            "score an accuracy test with MLCommons' own program",
            "sut score latest --inference DIR --references FILE",
        ),
        "verify": Command(
            "check a run against its record; sign it", "sut verify latest --sign ~/.ssh/id_ed25519"
        ),
        "report": Command("write the report of a run again", "sut report latest"),
        "compare": Command(
            "show what differs between runs and whether it exceeds the noise", "sut compare RUN RUN"
        ),
        "campaign": Command("compare the runs of a campaign", "sut campaign FOLDER"),
        "export": Command("write runs and samples as CSV or Parquet", "sut export latest"),
    },
    "submit to MLCommons": {
        "package": Command(
            "build a submission for MLCommons",
            "sut package --submitter NAME --division closed RUN RUN",
        ),
    },
}
OPTIONS = (
    "options:",
    "  --version              print the version",
    '  --completion SHELL     print completion code: eval "$(sut --completion bash)", or zsh',
    "  --help                 print this",
)
# What other programs call these commands, and commands that have no short form.
OTHER_NAMES = {
    **dict.fromkeys(("run", "start", "bench"), "sut submit"),
    **dict.fromkeys(("status", "follow", "logs", "tail"), "sut watch"),
    **dict.fromkeys(("ls", "runs", "ps", "show"), "sut history"),
    **dict.fromkeys(("stop", "kill", "delete"), "sut cancel"),
    **dict.fromkeys(("check", "lint"), "sut validate"),
    "help": "sut --help",
    "job": "python -m sut.job",
    "continue": "python -m sut.job",
    "requeue": "python -m sut.requeue",
}
COMMANDS = {name: each for group in GROUPS.values() for name, each in group.items()}


@command
def main() -> int:
    words = _completed_words() if COMPLETING in os.environ else sys.argv[1:]
    name = words[0] if words else ""
    if name in COMMANDS:
        return _main_of(name)(words[1:])
    if name and not name.startswith("-"):
        return _unknown(name, words[1:])
    if later := next((word for word in words if word in COMMANDS), ""):
        return _option_first(later, words)
    parser = _parser()
    shell = parser.parse(words).completion
    if shell:
        print(shellcode(["sut"], shell=shell))
        return EXIT_VALID
    parser.print_help(sys.stderr)
    return EXIT_BAD_INPUT


def _main_of(name: str) -> Callable[[list[str]], int]:
    with interrupts.at_once():
        module = importlib.import_module(f"sut.{name}")
        if hasattr(module, "__path__"):  # a package
            module = importlib.import_module(f"sut.{name}.__main__")
    found: Callable[[list[str]], int] = module.main
    return found


def _unknown(name: str, others: list[str]) -> int:
    nearest = difflib.get_close_matches(name, COMMANDS, 1)
    meant = OTHER_NAMES.get(name) or (f"sut {nearest[0]}" if nearest else "")
    if name == "help" and others[:1] and others[0] in COMMANDS:
        meant, others = f"sut {others[0]} --help", []
    hint = "for all commands: sut --help"
    if meant:
        hint = f"did you mean: {meant} {'' if name == 'help' else shlex.join(others)}".rstrip()
    messages.report(f"error: unknown command: {name}\nhint: {hint}")
    return EXIT_BAD_INPUT


def _option_first(name: str, words: list[str]) -> int:
    others = [word for index, word in enumerate(words) if index != words.index(name)]
    hint = shlex.join(["sut", name, *others])
    messages.report(f"error: options come after the command: {words[0]}\nhint: {hint}")
    return EXIT_BAD_INPUT


class _Parser(Parser):
    """Its help lists the commands by group, each with an example."""

    def format_help(self) -> str:
        lines = [self.format_usage().rstrip(), "", str(self.description)]
        for group, commands in GROUPS.items():
            lines += ["", f"{group}:"]
            for name, (line, example) in commands.items():
                lines += [f"  {name:<10} {line}", f"  {'':<10}   {example}"]
        lines += ["", *OPTIONS, "", str(self.epilog), ""]
        return "\n".join(lines)


def _parser() -> Parser:
    parser = _Parser(
        prog="sut",
        usage="sut COMMAND [OPTIONS]",
        description="Run MLPerf Inference on vLLM; judge, compare and package the results.",
        epilog="RUN: a run's folder, its name, latest, or its Slurm job id. "
        "All options: sut COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"sut {_version()}")
    parser.add_argument(
        "--completion",
        choices=("bash", "zsh"),
        metavar="SHELL",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, each in COMMANDS.items():
        commands.add_parser(name, help=each.line)  # for completion
    return parser


def _version() -> str:
    try:
        return metadata.version("mlperf-sut")
    except metadata.PackageNotFoundError:  # the environment of a login node has a checkout's path
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return str(project["version"])


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
