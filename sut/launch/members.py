"""Runs that are planned and submitted together; a campaign's folder lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sut.cluster import runs
from sut.cluster.sbatch import Submission
from sut.errors import Errors, InputError, SutError, quoted
from sut.launch import ending, executor, newrun
from sut.launch.executor import Submitted
from sut.launch.notices import NOBODY, Notices
from sut.launch.request import RunRequest, make_plan
from sut.plan.benchmark import Scenario
from sut.plan.config import Campaign, CampaignRun
from sut.plan.plan import Plan
from sut.rundir import RunDir, write_atomic
from sut.units import quantity
from sut.values import Struct


class Member(Struct, frozen=True, kw_only=True):
    """One run of a campaign."""

    name: str
    run_dir: str
    job_id: str


class Started(Struct, frozen=True, kw_only=True):
    """A submitted campaign. ``plans`` are the digests of all of its plans, by their runs."""

    name: str
    members: tuple[Member, ...]
    plans: dict[str, str] = {}


class Planned(NamedTuple):
    """A run before it is submitted; ``name`` is empty outside a campaign."""

    name: str
    plan: Plan
    run_root: Path
    notices: Notices = NOBODY


class Job(NamedTuple):
    """A submitted run."""

    submitted: Submitted
    plan: Plan
    run_dir: RunDir


def plan(campaign: Campaign, request: RunRequest) -> list[Planned]:
    """Every run of a campaign, with the site and the --set changes of the command line.

    Raises InputError that lists the errors of all runs.
    """
    planned, errors = [], Errors()
    for run, scenario in campaign.each():
        name = f"{run.name}, {scenario}"
        try:
            planned.append(Planned(name, *make_plan(_request(campaign, run, scenario, request))))
        except InputError as error:
            errors.add(f"{name}: {error}")
    errors.raise_all()
    return planned


def new_folder(campaign: Campaign, run_root: Path) -> Path:
    """A folder for a campaign. Raises InputError."""
    with newrun.writing_to(run_root):
        return newrun.new_folder(run_root, f"campaign-{campaign.name}")


def submit(planned: Planned, submission: Submission) -> Job:
    """Submit one run. Raises SutError; a run that was refused has a record with the reason."""
    notices = planned.notices
    run_dir = newrun.create(planned.plan, planned.run_root, notified=notices)
    if planned.plan.slurm is not None:
        submission = msgspec.structs.replace(
            submission, mail_type=notices.mail_type, mail_user=notices.mail_user
        )
    try:
        return Job(executor.submit(planned.plan, run_dir, submission), planned.plan, run_dir)
    except SutError as error:
        ending.close(planned.plan, run_dir, ending.attempt_of(planned.plan), error)
        raise


def submit_all(
    campaign: Campaign,
    folder: Path,
    planned: Sequence[Planned],
    submission: Submission,
    earlier: Mapping[str, Member],
) -> Iterator[tuple[str, Job]]:
    """Submit every run that no ``earlier`` submission left, one a step: its name and job.
    ``folder`` lists the submitted ones at any time."""
    members = dict(earlier)
    for each in planned:
        if each.name in members:
            continue
        job = submit(each, submission)
        run_dir, job_id = str(job.run_dir), job.submitted.job_id
        members[each.name] = Member(name=each.name, run_dir=run_dir, job_id=job_id)
        in_order = tuple(members[one.name] for one in planned if one.name in members)
        started = Started(name=campaign.name, members=in_order, plans=digests(planned))
        with newrun.writing_to(folder):
            content = msgspec.json.format(msgspec.json.encode(started))
            write_atomic(folder / runs.CAMPAIGN, content)
        yield each.name, job


def digests(planned: Sequence[Planned]) -> dict[str, str]:
    return {each.name: each.plan.digest() for each in planned}


def _request(
    campaign: Campaign, run: CampaignRun, scenario: Scenario, request: RunRequest
) -> RunRequest:
    return msgspec.structs.replace(
        request,
        benchmark=campaign.benchmark,
        site=request.site or campaign.site,
        nodes=str(run.nodes),
        scenario=scenario,
        mode=campaign.mode,
        preset=campaign.preset,
        campaign_sets=(*campaign.sets, *run.sets),
    )


def announced(job: Job, name: str = "") -> str:
    """Where the run is, and how to follow it; ``name`` is the run's in its campaign."""
    job_id, run_dir = job.submitted.job_id, job.run_dir
    here = job.plan.slurm is None
    begun, run = ("started", run_dir) if here else (f"job {job_id} submitted", job_id)
    run_of = f"run {name}, " if name else ""
    return (
        f"{begun}: {run_of}{job.plan.benchmark}, {job.plan.scenario}, {_where(job.plan)}\n"
        f"  files   {run_dir}\n"
        f"  watch   python -m sut.watch {quoted(run)}\n"
        f"  cancel  python -m sut.cancel {quoted(run)}"
    )


def _where(plan: Plan) -> str:
    if plan.slurm is None:
        return f"{quantity(len(plan.replicas), 'replicas')} on this machine"
    named = plan.nodes_text() and f" ({plan.nodes_text()})"
    nodes = quantity(len(plan.nodes), "nodes")
    return f"{quantity(len(plan.replicas), 'replicas')} on {nodes}{named}"
