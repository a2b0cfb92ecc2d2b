"""Submit a run: ``python -m sut.submit --scenario server``.

A benchmark and a site become a plan, the plan a run directory, the run directory a submitit job.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from sut.campaign import main as compare
from sut.cluster.sbatch import Submission
from sut.command import command
from sut.errors import EXIT_VALID, InputError
from sut.launch import again, checks, dry_run, executor, members, request
from sut.launch.checks import Check
from sut.launch.members import Job, Planned
from sut.launch.options import find_run, given_root
from sut.plan import config
from sut.plan.config import Campaign
from sut.plan.plan import Plan
from sut.units import quantity
from sut.watch import outcome
from sut.watch.follow import EXIT_DETACHED, follow, show_no_record, until_ended
from sut.watch.outcome import Outcome


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = request.parse(argv)
    campaign = config.load_campaign(arguments.config) if arguments.config else None
    planned = _plan(arguments, campaign)
    checked = [checks.check(each.plan, each.run_root) for each in planned]
    if arguments.dry_run:
        return dry_run.show(planned, checked, arguments)
    submission = _check(arguments, planned, checked)
    waits = _waits(arguments, planned)
    if campaign is None:
        run = _run_for_programs if arguments.json else _run
        return run(planned[0], submission, waits)
    run_all = _run_campaign_for_programs if arguments.json else _run_campaign
    return run_all(campaign, planned, submission, waits)


def _plan(arguments: argparse.Namespace, campaign: Campaign | None) -> list[Planned]:
    if campaign is not None:
        _refuse(arguments, ("scenario", "mode", "preset", "nodes", "again"), "a campaign")
        return members.plan(campaign, request.request_of(arguments))
    if arguments.again:
        return [_plan_again(arguments)]
    return [Planned("", *request.make_plan(request.request_of(arguments)))]


def _plan_again(arguments: argparse.Namespace) -> Planned:
    """The plan of an earlier run; prints what it does not fix and has changed."""
    _refuse(arguments, ("scenario", "mode", "preset", "config", "site", "nodes", "set"), "--again")
    run_dir = find_run(arguments.again, arguments)
    plan, changed = again.plan_of(run_dir)
    out = sys.stderr if arguments.json else sys.stdout
    print(f"again {run_dir.root.name}: plan {plan.digest()[:12]}", file=out)
    plan = request.keeping(plan, arguments.keep_engine or 0)
    for line in changed:
        print(f"  differs: {line}", file=out)
    return Planned("", plan, given_root(arguments.root) or run_dir.root.parent)


def _refuse(arguments: argparse.Namespace, names: Sequence[str], other: str) -> None:
    """Raise InputError where an option is given that would have no effect."""
    given = [f"--{name}" for name in names if getattr(arguments, name) not in (None, [])]
    if given:
        fixed_by = "the earlier plan" if other == "--again" else "its file"
        what = "it" if len(given) == 1 else "them"
        raise InputError(
            f"{', '.join(given)} cannot be combined with {other}: {fixed_by} fixes {what}",
            hint=f"leave out {', '.join(given)}",
        )


def _check(
    arguments: argparse.Namespace, planned: Sequence[Planned], checked: Sequence[Sequence[Check]]
) -> Submission:
    """How to submit the runs. Raises InputError that lists why this machine cannot."""
    submission = Submission(begin=arguments.begin, dependency=arguments.dependency)
    if arguments.keep_engine and planned[0].plan.slurm is not None:
        raise InputError(
            "--keep-engine has no effect on a job of its own: Slurm ends the engines with the job",
            hint="make several runs in one job: srun --nodes=1 --pty bash, then on the node: "
            "python -m sut.batch --keep-engine MINUTES",
        )
    for each in planned:
        executor.check(each.plan, submission)
    checks.problems([check for each in checked for check in each]).raise_all()
    return submission


def _waits(arguments: argparse.Namespace, planned: Sequence[Planned]) -> bool:
    on_slurm = planned[0].plan.slurm is not None
    return not on_slurm if arguments.wait is None else bool(arguments.wait)


def _run(planned: Planned, submission: Submission, waits: bool) -> int:
    job = members.submit(planned, submission)
    if not waits or job.plan.slurm is not None:
        print(_submitted(job), flush=True)
    return follow(*job) if waits else EXIT_VALID


def _run_campaign(
    campaign: Campaign, planned: Sequence[Planned], submission: Submission, waits: bool
) -> int:
    folder = members.new_folder(campaign, planned[0].run_root)
    jobs = []
    for job in members.submit_all(campaign, folder, planned, submission):
        print(_submitted(job), flush=True)
        jobs.append(job)
    print(f"compare the runs when they have finished: python -m sut.campaign {folder}", flush=True)
    if not waits:
        return EXIT_VALID
    for job in jobs:
        if follow(*job) == EXIT_DETACHED:
            return EXIT_DETACHED
    return compare([str(folder)])


def _run_for_programs(planned: Planned, submission: Submission, waits: bool) -> int:
    job = members.submit(planned, submission)
    code = _wait_quietly(job) if waits else EXIT_VALID
    _print_json(_outcome(job, planned.name))
    return code


def _run_campaign_for_programs(
    campaign: Campaign, planned: Sequence[Planned], submission: Submission, waits: bool
) -> int:
    folder = members.new_folder(campaign, planned[0].run_root)
    jobs = list(members.submit_all(campaign, folder, planned, submission))
    code = _wait_and_compare(jobs, folder) if waits else EXIT_VALID
    runs = [_outcome(job, each.name) for job, each in zip(jobs, planned, strict=True)]
    _print_json({"campaign": campaign.name, "folder": str(folder), "runs": runs})
    return code


def _wait_and_compare(jobs: Sequence[Job], folder: Path) -> int:
    """The worst exit code of the runs."""
    for job in jobs:
        if _wait_quietly(job) == EXIT_DETACHED:
            return EXIT_DETACHED
    with contextlib.redirect_stdout(sys.stderr):
        return compare([str(folder)])


def _wait_quietly(job: Job) -> int:
    """Wait with progress on standard error. Returns the run's exit code."""
    if not until_ended(*job, Console(stderr=True)):
        return EXIT_DETACHED
    found = _outcome(job, "").result
    return show_no_record(job.submitted, job.run_dir) if found is None else found.exit_code


def _outcome(job: Job, name: str) -> Outcome:
    return outcome.of(job.run_dir, job.submitted.job_id, job.plan, name)


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode(), flush=True)


def _submitted(job: Job) -> str:
    """Where the run is, and how to follow it."""
    job_id, run_dir = job.submitted.job_id, job.run_dir
    if job.plan.slurm is None:
        return f"job {job_id} started: {run_dir}\nfollow it: python -m sut.watch {run_dir}"
    what = f"{job.plan.benchmark}, {job.plan.scenario}, {_where(job.plan)}"
    return (
        f"job {job_id} submitted: {what}\n"
        f"  files   {run_dir}\n"
        f"  watch   python -m sut.watch {job_id}\n"
        f"  cancel  scancel {job_id}"
    )


def _where(plan: Plan) -> str:
    named = plan.nodes_text() and f" ({plan.nodes_text()})"
    nodes = quantity(len(plan.nodes), "nodes")
    return f"{quantity(len(plan.replicas), 'replicas')} on {nodes}{named}"


if __name__ == "__main__":
    sys.exit(main())
