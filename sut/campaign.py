"""A campaign: several runs, submitted together and compared: ``python -m sut.campaign FOLDER``.

Each is a run like any other, in a run directory and a job of its own. The campaign's folder says
which they are, and gets the comparison once they are over.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.command import command
from sut.errors import EXIT_FAILED, InputError
from sut.history import side_by_side
from sut.history.side_by_side import Run
from sut.launch.campaign import FILE, Member, Started
from sut.results import record
from sut.rundir import RunDir, write_atomic

COMPARISON, COMPARISON_HTML = "comparison.md", "comparison.html"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compare the runs of a campaign. The exit code is the worst of theirs."""
    parser = argparse.ArgumentParser(
        prog="python -m sut.campaign", description="Compare the runs of a campaign."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="as python -m sut.submit told")
    folder = parser.parse_args(argv).folder
    started = _started(folder)
    runs = [_run(member, folder) for member in started.members]
    for run in runs:
        print(f"{run.word:<10} {run.name}")
    title = f"Campaign {started.name}"
    try:
        write_atomic(folder / COMPARISON, side_by_side.render(title, runs))
        write_atomic(folder / COMPARISON_HTML, side_by_side.render_html(title, runs))
    except OSError as error:
        print(f"error: {folder / COMPARISON}: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{'compared':<10} {folder / COMPARISON} (and .html)")
    return max((r.record.exit_code if r.record else EXIT_FAILED for r in runs), default=0)


def _started(folder: Path) -> Started:
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Started)
    except (OSError, msgspec.MsgspecError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{folder / FILE}: {why}. Give the folder of a campaign") from None


def _run(member: Member, folder: Path) -> Run:
    run_dir = RunDir(member.run_dir)
    return Run(
        name=member.name,
        record=record.read(run_dir.record) if run_dir.record.is_file() else None,
        report=os.path.relpath(run_dir.report_html, folder.resolve()),
    )


if __name__ == "__main__":
    sys.exit(main())
