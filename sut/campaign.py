"""A campaign: several runs, submitted together and compared: ``python -m sut.campaign FOLDER``.

Each is a run like any other, in a run directory and a job of its own. The campaign's folder says
which they are, and gets the comparison once they are over.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sut import executor, newrun
from sut.benchmark import Scenario
from sut.command import command
from sut.config import Campaign, CampaignRun
from sut.errors import EXIT_FAILED, InputError
from sut.executor import Submitted
from sut.plan import Plan
from sut.planning import RunRequest, make_plan
from sut.results import comparison, record
from sut.results.comparison import Run
from sut.rundir import RunDir, write_atomic
from sut.sbatch import Submission
from sut.struct import Struct

FILE = "campaign.json"
COMPARISON, COMPARISON_HTML = "comparison.md", "comparison.html"


class Member(Struct, frozen=True, kw_only=True):
    """One run of a campaign."""

    name: str
    run_dir: str
    job_id: str


class Started(Struct, frozen=True, kw_only=True):
    """A campaign that was submitted."""

    name: str
    members: tuple[Member, ...]


def plans(campaign: Campaign, request: RunRequest) -> list[tuple[str, Plan, Path]]:
    """Name, plan and run root of every run. ``request`` is what the command line says on top.

    Raises InputError that lists the mistakes of all.
    """
    planned, mistakes = [], []
    for run, scenario in campaign.each():
        try:
            plan, run_root = make_plan(_request(campaign, run, scenario, request))
            planned.append((f"{run.name}, {scenario}", plan, run_root))
        except InputError as error:
            mistakes.append(f"{run.name}, {scenario}: {error}")
    if mistakes:
        raise InputError("\n".join(mistakes))
    return planned


def folder_for(
    campaign: Campaign, planned: Sequence[tuple[str, Plan, Path]], submission: Submission
) -> Path:
    """A folder for a campaign whose runs can be submitted. Raises InputError."""
    for _, plan, _ in planned:
        executor.check(plan, submission)
    run_root = planned[0][2]
    with newrun.writing_to(run_root):
        return newrun.new_folder(run_root, f"campaign-{campaign.name}")


def start(
    campaign: Campaign,
    folder: Path,
    planned: Sequence[tuple[str, Plan, Path]],
    submission: Submission,
) -> Iterator[tuple[Submitted, Plan, RunDir]]:
    """Submit every run, one a step. Those that are submitted are in ``folder`` at any time."""
    members: list[Member] = []
    for name, plan, run_root in planned:
        run_dir = newrun.create(plan, run_root)
        job = executor.submit(plan, run_dir, submission)
        members.append(Member(name=name, run_dir=str(run_dir), job_id=job.job_id))
        started = Started(name=campaign.name, members=tuple(members))
        with newrun.writing_to(folder):
            write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(started)))
        yield job, plan, run_dir


def _request(
    campaign: Campaign, run: CampaignRun, scenario: Scenario, request: RunRequest
) -> RunRequest:
    return msgspec.structs.replace(
        request,
        benchmark=campaign.benchmark,
        site=request.site or campaign.site,
        nodes=run.nodes,
        scenario=scenario,
        mode=campaign.mode,
        preset=campaign.preset,
        sets=(*campaign.sets, *run.sets, *request.sets),
    )


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
        write_atomic(folder / COMPARISON, comparison.render(title, runs))
        write_atomic(folder / COMPARISON_HTML, comparison.render_html(title, runs))
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
