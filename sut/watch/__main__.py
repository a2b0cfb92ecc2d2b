"""``python -m sut.watch RUN``: show a run from any machine that sees its folder.

Starting, stopping or killing it has no effect on the run. It writes nothing but the report of a
run that ended without one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sut import layout
from sut.cluster.runs import LATEST
from sut.command import Parser, command, print_json
from sut.errors import EXIT_FAILED, EXIT_VALID
from sut.launch import ending
from sut.launch.options import RUN, add, add_runs, find_run, shared
from sut.report.summary import summary
from sut.results import record
from sut.watch import notify
from sut.watch.frame import frame
from sut.watch.observer import Observer
from sut.watch.patience import Patience
from sut.watch.prometheus import Exporter
from sut.watch.screen import Screen, print_once
from sut.watch.state import RunState

LOOK_S = 1.0


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    try:
        observer = Observer(find_run(options.run, options))
        if options.json:
            print_json(observer.look())
            return EXIT_VALID
        if options.once:
            print_once(frame(observer.look()))
            return EXIT_VALID
        return watch(observer, options.prometheus)
    except KeyboardInterrupt:
        print("\ndetached; the run continues", file=sys.stderr)
        return EXIT_VALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.watch",
        description="Show a run that is pending, running or finished. Ctrl-C detaches.",
        epilog="exit codes: the run's if it is watched until it finishes, otherwise 0; 2 bad input",
        examples=("", "4711 --once"),
        parents=[shared("site", "root")],
    )
    add_runs(parser, nargs="?", default=LATEST, help=f"{RUN} (default: {LATEST})")
    parser.add_argument("--once", action="store_true", help="print one frame and exit")
    add(parser, "json", help="print one frame as JSON and exit")
    parser.add_argument(
        "--prometheus",
        metavar="PORT|FILE",
        help="also publish the state as Prometheus metrics: at http://127.0.0.1:PORT/metrics "
        "(HOST:PORT for another address), or in FILE",
    )
    return parser.parse(argv)


def watch(observer: Observer, prometheus: str | None = None) -> int:
    """Show the run until it finishes, then its result. Returns the run's exit code. Raises
    InputError where its metrics cannot be published at ``prometheus``."""
    exporter = Exporter(prometheus) if prometheus else None
    if exporter is not None:
        print(f"metrics: {exporter.address}", file=sys.stderr)
    try:
        state = _until_finished(observer, exporter)
    finally:
        if exporter is not None:
            exporter.close()
    if state.state in ("lost", "unknown"):
        print_once(frame(state))
        return EXIT_FAILED
    if observer.has_ended:
        ending.draw_if_missing(observer.run)
    result = record.read(observer.run.record)
    print(summary(result, observer.run, width=layout.terminal_width()))
    notify.warn_of_failure(observer.run)
    return result.exit_code


def _until_finished(observer: Observer, exporter: Exporter | None) -> RunState:
    patience = Patience()
    with Screen() as screen:
        while True:
            state = observer.look()
            if exporter is not None:
                exporter.show(state)
            if patience.ends(state):
                return state
            screen.show(state)
            screen.wait(LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
