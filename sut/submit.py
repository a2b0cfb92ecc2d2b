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

from sut import again, campaign, config, executor, newrun
from sut.benchmark import Preset, Scenario
from sut.command import command
from sut.errors import EXIT_VALID, InputError
from sut.executor import Submitted
from sut.follow import EXIT_DETACHED, follow
from sut.plan import Mode, Plan
from sut.planning import RunRequest, make_plan
from sut.results.units import quantity
from sut.rundir import RunDir
from sut.sbatch import Submission


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
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
    return make_plan(request_of(arguments))


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
    planned = campaign.plans(runs, request_of(arguments))
    if arguments.dry_run:
        for name, plan, _ in planned:
            print(f"# {name}\n{describe(plan)}")
        return EXIT_VALID
    jobs = []
    folder = campaign.folder_for(runs, planned, submission)
    for job, plan, run_dir in campaign.start(runs, folder, planned, submission):
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.submit",
        description="Run MLPerf Inference's LoadGen against vLLM and judge what comes out.",
        epilog="exit codes: 0 VALID, 1 INVALID or a gate failed, 2 bad input, 3 the run failed",
    )
    unsaid = RunRequest()
    for name, kind, default, text in (
        ("scenario", Scenario, unsaid.scenario, "the load that is offered"),
        (
            "mode",
            Mode,
            unsaid.mode,
            "what is measured; all: each that applies, on one engine start",
        ),
        ("preset", Preset, unsaid.preset, "quick: ten samples; smoke: the least that is VALID"),
    ):
        parser.add_argument(
            f"--{name}",
            type=str.lower,
            # A look at the nodes alone is sut.doctor's.
            choices=[each.value for each in kind if each is not Mode.PREFLIGHT],
            help=f"{text} (default: {default})",
        )
    parser.add_argument(
        "--config",
        metavar="NAME|FILE",
        help=f"benchmark or campaign, in configs/ or a file (default: {unsaid.benchmark})",
    )
    parser.add_argument(
        "--site",
        metavar="NAME|FILE",
        help="where it runs, in configs/sites or a file (default: $SUT_SITE, or the cluster this "
        "is, or local)",
    )
    parser.add_argument(
        "--nodes",
        metavar="N|NAMES|all",
        help="nodes of the site: a number, names with commas, or all (default: one). One LoadGen "
        "drives a replica on every GPU of them",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the benchmark, or of the site (site.KEY=VALUE); repeatable",
    )
    parser.add_argument(
        "--again", metavar="RUN_DIR", help="the plan of this run once more; says what has changed"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="follow the run to its end, or return at once (default: return, on a Slurm cluster; "
        "follow, elsewhere)",
    )
    parser.add_argument(
        "--begin", default="", metavar="TIME", help="not before, as sbatch takes it: 02:00"
    )
    parser.add_argument(
        "--dependency",
        default="",
        metavar="WHAT",
        help="as sbatch takes it: singleton, afterany:JOBID",
    )
    return parser.parse_args(argv)


def request_of(arguments: argparse.Namespace) -> RunRequest:
    """What the options ask for, and what holds where they don't say."""
    said = {
        "benchmark": arguments.config,
        "site": arguments.site,
        "nodes": arguments.nodes,
        "scenario": arguments.scenario,
        "mode": arguments.mode,
        "preset": arguments.preset,
        "sets": arguments.set,
    }
    return msgspec.convert({k: v for k, v in said.items() if v is not None}, RunRequest)


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
