"""The engines that runs have kept for the next run: ``python -m sut.engines [stop]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sut import layout
from sut.command import Parser, command, print_json
from sut.errors import EXIT_FAILED, EXIT_VALID, InputError, quoted
from sut.launch.options import add
from sut.serving import ended, keepers, registry
from sut.serving.keeper_messages import Status
from sut.units import number, quantity

GRACE_S = 10.0
NONE = "no kept engines on this machine"

Living = dict[str, Status | None]


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = _options(argv)
    living = _living()
    if arguments.action == "stop":
        return _stop(_chosen(arguments, living))
    if arguments.json:
        statuses = [status for status in living.values() if status is not None]
        print_json(statuses)
        return EXIT_VALID
    _print(living)
    return EXIT_VALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.engines",
        description="List the engines that runs with --keep-engine have left running on this "
        "machine, or stop them.",
        epilog="exit codes: 0 done, 2 bad input, 3 some engines are in use: they end with their "
        "run",
        examples=("", "stop 3fa2", "stop --all"),
    )
    parser.add_argument("action", nargs="?", choices=("list", "stop"), default="list")
    parser.add_argument("ids", nargs="*", metavar="ID", help="for stop: the engines, by their ids")
    parser.add_argument("--all", action="store_true", help="for stop: all engines")
    add(parser, "json")
    return parser.parse(argv)


def _living() -> Living:
    try:
        return dict(keepers.living())
    except OSError as error:
        raise InputError(
            f"cannot read the registry of engines ({error.filename}): {error.strerror}",
            hint=f"make the folder accessible to you alone: chmod 700 {quoted(registry.folder())}",
        ) from None


def _chosen(arguments: argparse.Namespace, living: Living) -> list[str]:
    """The engines to stop. Raises InputError."""
    if arguments.all or not (arguments.ids or len(living) > 1):
        return list(living)
    if not arguments.ids:
        raise InputError(
            f"{len(living)} engines are running: {', '.join(living)}",
            hint="sut engines stop ID, or: sut engines stop --all",
        )
    chosen = []
    for wanted in arguments.ids:
        found = [each for each in living if each.startswith(wanted)]
        if len(found) != 1:
            problem = f"{'several' if found else 'no'} engines with id {wanted}"
            ends = [end for end in ended.all_recent() if end.keeper.startswith(wanted)]
            if ends and not found:
                problem = f"engines {ends[-1].keeper} have ended: {ends[-1].why}"
            raise InputError(problem, hint="for all ids: sut engines")
        chosen += found
    return chosen


def _stop(chosen: Sequence[str]) -> int:
    if not chosen:
        print(NONE)
    code = EXIT_VALID
    for each in chosen:
        reason = keepers.stop(each, GRACE_S, "by sut engines stop")
        print(f"{each}: {reason or 'stopped'}", flush=True)
        code = EXIT_FAILED if reason else code
    return code


def _print(living: Living) -> None:
    width = layout.terminal_width()
    head = ("id", "serves", "replicas", "started", "runs", "samples", "state")
    rows = [_row(*each) for each in living.items()]
    lines = layout.columns(head, rows, (2, 4, 5), width) if rows else [NONE]
    if past := [(end.keeper, end.what, end.ended_utc, end.why) for end in ended.all_recent()]:
        lines += ["", *layout.columns(("ended", "served", "at", "why"), past, (), width)]
    print("\n".join(lines))


def _row(keeper: str, status: Status | None) -> tuple[str, ...]:
    if status is None:
        return keeper, "-", "-", "-", "-", "-", f"no answer; kill it: sut engines stop {keeper}"
    return (
        keeper,
        status.what,
        number(len(status.samples)),
        status.started_utc,
        number(status.runs),
        number(sum(status.samples)),
        _state(status),
    )


def _state(status: Status) -> str:
    if status.ends_in_s is None:
        return f"in use by {status.run}"
    if status.ends_in_s < 60:
        return f"idle; ends in {quantity(round(status.ends_in_s), 's')}"
    return f"idle; ends in {quantity(round(status.ends_in_s / 60), 'minutes')}"


if __name__ == "__main__":
    sys.exit(main())
