"""``python -m sut.report RUN...``: write the reports of runs again, from the runs' files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sut import messages
from sut.command import Parser, command
from sut.errors import EXIT_FAILED, quoted
from sut.launch.options import add_runs, find_runs, shared
from sut.report.publish import ONLY_HTML, write_html, write_markdown
from sut.results import record


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    code = 0
    for run_dir in find_runs(options.runs, options):
        result = record.read(run_dir.root)
        try:
            problem = write_html(result, run_dir)
            if not options.only_html:
                write_markdown(result, run_dir, problem or "")
        except OSError as error:
            where = error.filename or run_dir
            messages.report(
                f"error: report not written ({where}): {error.strerror}\n"
                "hint: copy the run to a folder that you can write to: "
                f"cp -r {quoted(run_dir)} FOLDER"
            )
            return EXIT_FAILED
        print(run_dir.report_html)
        if problem is not None:
            messages.report(f"error: {problem}")
            code = EXIT_FAILED
    return code


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.report",
        description="Write report.md and report.html of runs again, from the runs' files.",
        epilog="exit codes: 0 written, 2 not a run, 3 written without plots or not written",
        examples=("latest",),
        parents=[shared("site", "root")],
    )
    add_runs(parser, "runs", nargs="+")
    parser.add_argument(ONLY_HTML, action="store_true", help="leave report.md as it is")
    return parser.parse(argv)


if __name__ == "__main__":
    sys.exit(main())
