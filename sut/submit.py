"""Submit a run: ``python -m sut.submit --scenario server``.

Config and site become a plan, the plan a run directory, the run directory a submitit job. Exit
codes: 0 VALID, 1 ran but INVALID or failed its gate, 2 bad input, 3 the run failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut import campaign
from sut.cluster.sbatch import Submission
from sut.command import command
from sut.errors import EXIT_VALID, InputError
from sut.launch import again, executor, newrun, request
from sut.launch import campaign as campaign_runs
from sut.launch.executor import Submitted
from sut.launch.request import make_plan
from sut.plan import config
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.units import quantity
from sut.watch.follow import EXIT_DETACHED, follow


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = request.parse(argv)
    submission = Submission(begin=arguments.begin, dependency=arguments.dependency)
    if arguments.config and (runs := config.load_campaign(arguments.config)) is not None:
        return _campaign(runs, arguments, submission)
    plan, run_root = _plan_again(arguments) if arguments.again else _plan(arguments)
    if arguments.dry_run:
        print(describe(plan), end="")
        return EXIT_VALID
    executor.check(plan, submission)
    run_dir = newrun.create(plan, run_root)
    submitted = executor.submit(plan, run_dir, submission)
    here = plan.slurm is None
    wait = here if arguments.wait is None else arguments.wait
    if not (here and wait):
        print(_submitted(submitted, plan, run_dir), flush=True)
    if wait:
        return follow(submitted, plan, run_dir)
    return EXIT_VALID


def _plan(arguments: argparse.Namespace) -> tuple[Plan, Path]:
    return make_plan(request.request_of(arguments))


def _plan_again(arguments: argparse.Namespace) -> tuple[Plan, Path]:
    """The plan of an earlier run; tells what it does not fix and has changed."""
    _refuse(arguments, ("scenario", "mode", "preset", "config", "site", "nodes", "set"), "--again")
    run_dir = RunDir(arguments.again)
    plan, changed = again.plan_of(run_dir)
    print(f"again {run_dir.root.name}: plan {plan.digest()[:12]}")
    for line in changed:
        print(f"  differs: {line}")
    return plan, run_dir.root.parent


def _campaign(runs: config.Campaign, arguments: argparse.Namespace, submission: Submission) -> int:
    _refuse(arguments, ("scenario", "mode", "preset", "nodes", "again"), "a campaign")
    planned = campaign_runs.plans(runs, request.request_of(arguments))
    if arguments.dry_run:
        for name, plan, _ in planned:
            print(f"# {name}\n{describe(plan)}")
        return EXIT_VALID
    jobs = []
    folder = campaign_runs.folder_for(runs, planned, submission)
    for job, plan, run_dir in campaign_runs.start(runs, folder, planned, submission):
        print(_submitted(job, plan, run_dir), flush=True)
        jobs.append((job, plan, run_dir))
    print(f"compare them when they are over:  python -m sut.campaign {folder}", flush=True)
    if arguments.wait is False or (arguments.wait is None and jobs[0][1].slurm is not None):
        return EXIT_VALID
    for job, plan, run_dir in jobs:
        if follow(job, plan, run_dir) == EXIT_DETACHED:
            return EXIT_DETACHED
    return campaign.main([str(folder)])


def _refuse(arguments: argparse.Namespace, names: Sequence[str], beside: str) -> None:
    """Raise InputError where an option is given that would be passed over in silence."""
    given = [f"--{name}" for name in names if getattr(arguments, name) not in (None, [])]
    if given:
        raise InputError(
            f"{', '.join(given)} can't be given with {beside}, which says that itself. Leave out "
            "one or the other"
        )


def describe(plan: Plan) -> str:
    """The plan and LoadGen's user.conf, for reading."""
    text = msgspec.yaml.encode(plan, order="sorted").decode()
    return f"{text}\n# user.conf\n{plan.user_conf()}"


def _submitted(job: Submitted, plan: Plan, run_dir: RunDir) -> str:
    """Where the run is, and how to watch it."""
    if plan.slurm is None:
        return f"job {job.job_id} runs in {run_dir}\nfollow it:  python -m sut.watch {run_dir}"
    lines = [f"job {job.job_id} is submitted: {plan.benchmark}, {plan.scenario}, {_where(plan)}"]
    lines += [f"  files   {run_dir}", f"  watch   python -m sut.watch {job.job_id}"]
    return "\n".join([*lines, f"  cancel  scancel {job.job_id}"])


def _where(plan: Plan) -> str:
    names = [node.name for node in plan.nodes]
    replicas = quantity(len(plan.replicas), "replicas")
    return f"{replicas} on {quantity(len(names), 'nodes')}" + (
        f" ({', '.join(names)})" if all(names) else ""
    )


if __name__ == "__main__":
    sys.exit(main())
