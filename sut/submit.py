"""Submit a run: ``python -m sut.submit --scenario server``.

Config and site become a plan, the plan a run directory, the run directory a submitit job. Exit
codes: 0 VALID, 1 ran but INVALID or failed its gate, 2 bad input, 3 the run failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut import config, fit, newrun, sites
from sut.errors import EXIT_VALID, SutError
from sut.executor import Submitted, submit
from sut.follow import follow
from sut.plan import Mode, Plan, Preset, Scenario
from sut.resolve import resolve
from sut.rundir import RunDir
from sut.sbatch import Submission


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        plan, run_root = make_plan(arguments)
        if arguments.dry_run:
            print(describe(plan), end="")
            return EXIT_VALID
        run_dir = newrun.create(plan, run_root)
        submission = Submission(begin=arguments.begin, dependency=arguments.dependency)
        submitted = submit(plan, run_dir, submission)
        here = plan.slurm is None
        wait = here if arguments.wait is None else arguments.wait
        if not (here and wait):
            print(_submitted(submitted, plan, run_dir), flush=True)
        if wait:
            return follow(submitted, plan, run_dir)
    except SutError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_VALID


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sut submit",
        description="Run MLPerf Inference's LoadGen against vLLM and judge what comes out.",
        epilog="exit codes: 0 VALID, 1 INVALID or a gate failed, 2 bad input, 3 the run failed",
    )
    for name, kind, default, text in (
        ("scenario", Scenario, Scenario.SERVER, "the load that is offered"),
        ("mode", Mode, Mode.PERFORMANCE, "what is measured; all: both, on one engine start"),
        ("preset", Preset, Preset.SMOKE, "quick: ten samples; smoke: the least that is VALID"),
    ):
        parser.add_argument(
            f"--{name}",
            type=str.lower,
            choices=[each.value for each in kind],
            default=default.value,
            help=f"{text} (default: {default})",
        )
    parser.add_argument(
        "--config",
        default="smollm2-135m-news",
        metavar="NAME|FILE",
        help="benchmark, in configs/benchmarks or a file (default: %(default)s)",
    )
    parser.add_argument(
        "--site",
        metavar="NAME|FILE",
        help="where it runs, in configs/sites or a file (default: $SUT_SITE, or the cluster this "
        "is, or local)",
    )
    parser.add_argument(
        "--nodes",
        default="",
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


def make_plan(arguments: argparse.Namespace) -> tuple[Plan, Path]:
    """The plan, and the folder its run goes into. Raises InputError."""
    where = arguments.site or sites.default()
    benchmark, site = config.load(arguments.config, where, arguments.set)
    model = site.models.get(benchmark.model.name, "")
    plan = resolve(
        benchmark,
        site,
        scenario=Scenario(arguments.scenario),
        mode=Mode(arguments.mode),
        preset=Preset(arguments.preset),
        usable_cpus=sorted(os.sched_getaffinity(0)),
        nodes=arguments.nodes,
        model_size=fit.model_size(Path(model)) if model else None,
        sets=arguments.set,
    )
    return plan, Path(site.run_root)


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
    number = f"{len(names)} node{'s' * (len(names) > 1)}"
    replicas = f"{len(plan.replicas)} replica{'s' * (len(plan.replicas) > 1)}"
    return f"{replicas} on {number}" + (f" ({', '.join(names)})" if all(names) else "")


if __name__ == "__main__":
    sys.exit(main())
