"""``python -m sut.campaign FOLDER``: compare the runs of a campaign.

Each run of a campaign has its own run directory and job. The campaign's folder lists them, and
gets the comparison.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut import layout
from sut.cluster.runs import CAMPAIGN
from sut.command import Parser, command
from sut.errors import EXIT_FAILED, InputError, SutError, quoted
from sut.history import campaign_page
from sut.history.comparison import Run
from sut.home import expanded
from sut.launch.members import Member, Started
from sut.launch.options import run_root, shared
from sut.results import record
from sut.rundir import RunDir, write_atomic
from sut.values import UNDECODABLE

COMPARISON, COMPARISON_HTML = "comparison.md", "comparison.html"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code is the worst of the runs'."""
    parser = Parser(
        prog="python -m sut.campaign",
        description="Compare the runs of a campaign.",
        epilog="exit codes: the worst of the runs'; 2 bad input",
        examples=("FOLDER",),
        parents=[shared("site", "root")],
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="a campaign's folder, or its name under the run root"
    )
    folder = _folder(parser.parse(argv))
    started = _started(folder)
    runs = [_run(member, folder) for member in started.members]
    _write(folder, f"Campaign {started.name}", runs)
    rows = [(run.headline, run.name) for run in runs]
    names = {member.name for member in started.members}
    rows += [("not started", name) for name in started.plans if name not in names]
    rows.append(("compared", f"{folder / COMPARISON} (and .html)"))
    print("\n".join(layout.columns((), rows, (), layout.terminal_width())))
    return max((r.record.exit_code if r.record else EXIT_FAILED for r in runs), default=0)


def _folder(options: argparse.Namespace) -> Path:
    path = expanded(options.folder)
    return path if path.exists() else run_root(options) / options.folder


def _write(folder: Path, title: str, runs: Sequence[Run]) -> None:
    try:
        write_atomic(folder / COMPARISON, campaign_page.render(title, runs))
        write_atomic(folder / COMPARISON_HTML, campaign_page.render_html(title, runs))
    except OSError as error:
        raise SutError(
            f"cannot write the comparison ({folder / COMPARISON}): {error.strerror}"
        ) from None


def _started(folder: Path) -> Started:
    try:
        return msgspec.json.decode((folder / CAMPAIGN).read_bytes(), type=Started)
    except (OSError, *UNDECODABLE) as error:
        if RunDir(folder).plan.is_file():
            raise InputError(
                f"{folder} is a run, not a campaign", hint=f"python -m sut.watch {quoted(folder)}"
            ) from None
        if folder.is_file() and folder.suffix in (".yaml", ".yml"):
            raise InputError(
                f"{folder} is a campaign's file, not its folder",
                hint="run it, or what is left of it: python -m sut.submit --config "
                f"{shlex.quote(str(folder))}",
            ) from None
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"no campaign found ({folder / CAMPAIGN}): {why}",
            hint="give the folder that sut.submit printed: python -m sut.campaign FOLDER",
        ) from None


def _run(member: Member, folder: Path) -> Run:
    run_dir = RunDir(member.run_dir)
    return Run(
        name=member.name,
        record=record.read(run_dir.record) if run_dir.record.is_file() else None,
        report=os.path.relpath(run_dir.report_html, folder.resolve()),
    )


if __name__ == "__main__":
    sys.exit(main())
