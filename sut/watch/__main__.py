"""``python -m sut.watch RUN|JOBID``: a run as it goes on, from any machine that sees its folder.

It only reads: attaching, detaching and killing it change nothing about the run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import msgspec
from rich.console import Console

from sut.cluster import runs
from sut.command import command
from sut.errors import EXIT_FAILED, EXIT_VALID
from sut.launch.options import run_root, shared
from sut.report import render
from sut.results import record
from sut.watch.observer import Observer
from sut.watch.screen import Screen, frame
from sut.watch.state import RunState

LOOK_S = 1.0
LOST_AFTER_S = 10.0  # a record may come late over a shared file system


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the run's exit code when it was watched to its end, else 0 (2: bad input)."""
    options = _options(argv)
    try:
        run = runs.find(options.run, run_root(options))
        observer = Observer(run)
        if options.json:
            print(msgspec.json.format(msgspec.json.encode(observer.look())).decode())
            return EXIT_VALID
        if options.once:
            Console().print(frame(observer.look()))
            return EXIT_VALID
        return watch(observer)
    except KeyboardInterrupt:
        print("\ndetached; the run goes on", file=sys.stderr)
        return EXIT_VALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.watch",
        description="Show a run that is pending, running or over. Ctrl-C detaches.",
        epilog="exit codes: the run's when it is watched to its end, otherwise 0; 2 bad input",
        parents=[shared("site", "root")],
    )
    parser.add_argument(
        "run",
        nargs="?",
        default="latest",
        metavar="RUN|JOBID",
        help="a run's folder, its name under the run root, or a Slurm job (default: latest)",
    )
    parser.add_argument("--once", action="store_true", help="print one frame and leave")
    parser.add_argument("--json", action="store_true", help="print one frame as JSON and leave")
    return parser.parse_args(argv)


def watch(observer: Observer) -> int:
    """Show the run until it is over, then its result."""
    state = _until_over(observer)
    if state.state == "lost":
        Console().print(frame(state))
        return EXIT_FAILED
    result = record.read(observer.run.record)
    print(render.summary(result, observer.run))
    return result.exit_code


def _until_over(observer: Observer) -> RunState:
    lost_since: float | None = None
    with Screen() as screen:
        while True:
            state = observer.look()
            if state.state == "over":
                return state
            lost_since = (lost_since or time.monotonic()) if state.state == "lost" else None
            if lost_since is not None and time.monotonic() - lost_since >= LOST_AFTER_S:
                return state
            screen.show(state)
            time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
