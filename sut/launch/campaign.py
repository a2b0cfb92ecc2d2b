"""The runs of a campaign, planned and submitted together; its folder lists them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sut.cluster.sbatch import Submission
from sut.errors import InputError
from sut.launch import executor, newrun
from sut.launch.executor import Submitted
from sut.launch.request import RunRequest, make_plan
from sut.plan.benchmark import Scenario
from sut.plan.config import Campaign, CampaignRun
from sut.plan.plan import Plan
from sut.rundir import RunDir, write_atomic
from sut.values import Struct

FILE = "campaign.json"


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
