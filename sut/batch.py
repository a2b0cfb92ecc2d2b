"""What a batch script runs: ``python -m sut.batch [RUN | options of sut.submit]``.

Runs on the first node of a Slurm job.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut import requeue
from sut.cluster import allocation, claims, runs, sbatch, slurm
from sut.cluster.allocation import Allocation
from sut.cluster.host import wait
from sut.command import command_of_run
from sut.errors import InputError
from sut.launch import newrun, node, request, run_options
from sut.launch.notices import Notices
from sut.launch.options import RUN, add_runs, find_run
from sut.plan.hostlist import compact
from sut.plan.plan import Plan, load_plan
from sut.results import attempts
from sut.rundir import RunDir

ABOUT = (
    "Run on every node of this Slurm job and wait: a new run for the nodes of the job, or RUN. "
    "The scripts in slurm/ call it: sbatch slurm/multi.sh [RUN | options]"
)
EXAMPLES = ("--scenario offline --mode all", "RUN")


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    return run(options("batch", ABOUT, EXAMPLES, argv))[1]


def options(
    name: str, about: str, examples: Sequence[str], argv: Sequence[str] | None
) -> argparse.Namespace:
    """The options of a command that runs inside a job; ``run`` is None for a new run."""
    parser = run_options.parser(name, about, examples)
    add_runs(parser, nargs="?", help=f"an existing run instead of a new one: {RUN}")
    parsed = parser.parse(argv)
    if parsed.run is not None and parsed != parser.parse_args([parsed.run]):
        parser.error(
            f"run {parsed.run} has a plan: options cannot change it",
            f"leave them out: {parser.prog} {shlex.quote(parsed.run)}",
        )
    return parsed


def run(options: argparse.Namespace, script: str = "single.sh") -> tuple[RunDir, int]:
    """The run directory, and the exit code of its run when it has finished. ``script`` is the one
    to submit outside of a job. Raises SutError."""
    job = _job(os.environ, script)
    _make_output_private()
    run_dir = _new(options, job) if options.run is None else _given(options, job)
    slurm.set_comment(job.job_id, str(run_dir))
    print(f"job {job.job_id} on {compact(job.nodes)}: {run_dir}", flush=True)
    plan = load_plan(run_dir.plan)
    command = after_setup(plan, srun(plan, run_dir, len(job.nodes)))
    code = wait(command, {**os.environ, **srun_environment(os.environ)})
    node.close_unrecorded(run_dir, job, code)
    requeue.end(run_dir, job)
    return run_dir, code


def srun(plan: Plan, run_dir: RunDir, num_nodes: int) -> list[str]:
    """The command that starts the run on every node."""
    words = ["srun", f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
    words += ["--unbuffered", *sbatch.step_options(plan)]
    return [*words, sys.executable, "-u", "-m", "sut.job", str(run_dir)]


def after_setup(plan: Plan, command: Sequence[str]) -> list[str]:
    """The same command after shell lines: the site's, and one that ends an srun that cannot end."""
    lines = [*(sbatch.setup(plan.slurm) if plan.slurm else []), *sbatch.end_srun(plan)]
    if not lines:
        return list(command)
    return ["bash", "-c", "\n".join([*lines, 'exec "$@"']), "bash", *command]


def srun_environment(of_batch: Mapping[str, str]) -> dict[str, str]:
    """Variables to add for srun, which ignores SLURM_CPUS_PER_TASK in Slurm 22.05 and 23.02."""
    cpus = of_batch.get("SLURM_CPUS_PER_TASK")
    return {"SRUN_CPUS_PER_TASK": cpus} if cpus else {}


def _job(environment: Mapping[str, str], script: str) -> Allocation:
    if not environment.get("SLURM_JOB_ID"):
        raise InputError(
            "this process is not in a Slurm job",
            hint=f"submit a job: sbatch {sbatch.scripts() or 'slurm'}/{script}",
        )
    return allocation.of_process({**environment, **slurm.forwarded_env(environment)})


def _make_output_private() -> None:
    """sbatch gives the job's output file the mode that the user's umask allows."""
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.fchmod(fd, 0o600)


def _new(options: argparse.Namespace, job: Allocation) -> RunDir:
    unusable = {
        "--begin": options.begin,
        "--dependency": options.dependency,
        "--nodes": options.nodes,
        "--again": options.again,
        "--start-over": options.start_over,
        "--dry-run": options.dry_run,
        "--full": options.full,
        "--wait": options.wait is True,
        "--no-wait": options.wait is False,
        "--json": options.json,
    }
    if given := [name for name, value in unusable.items() if value]:
        raise InputError(
            f"{', '.join(given)} cannot be used inside a job",
            hint="give --begin, --dependency and --nodes to sbatch (sbatch --nodes=2 "
            f"{sbatch.scripts() or 'slurm'}/multi.sh), the others to python -m sut.submit",
        )
    if options.keep_engine:
        raise InputError(
            "--keep-engine cannot be used with a batch script of this project: its run is a job "
            "step, and Slurm ends the engines with the step",
            hint="inside the job, on its node: python -m sut.submit --set site.slurm=null "
            "--keep-engine MINUTES ... (docs/run.md)",
        )
    options.nodes = ",".join(job.nodes)
    return _of_this_job(*request.make_plan(run_options.request_of(options)), job)


def _given(options: argparse.Namespace, job: Allocation) -> RunDir:
    """The run on the command line. Raises InputError where the job cannot run it: if each node
    refused it, srun would end the slower ones and return their exit code."""
    given = find_run(options.run, options)
    plan = load_plan(given.plan)
    allocation.check(plan, job, given)
    attempts.earlier(plan, given)
    claims.require_free(given, job.job_id, job.attempt)
    return given


def _of_this_job(plan: Plan, run_root: Path, notices: Notices, job: Allocation) -> RunDir:
    """A new run directory, or that of the job's earlier attempt if it was interrupted.

    scrontab requeues a job whenever it is due, even after a completed run.
    """
    link = runs.job_link(run_root, job.job_id)
    earlier = RunDir(link)
    if job.attempt > 0 and earlier.plan.is_file():
        same = load_plan(earlier.plan).digest() == plan.digest()
        if same and attempts.was_interrupted(earlier):
            return earlier
    run_dir = newrun.create(plan, run_root, _command(job), notices)
    link.unlink(missing_ok=True)
    link.symlink_to(run_dir.root.name)
    return run_dir


def _command(job: Allocation) -> str:
    """The job as it can be submitted again; empty if Slurm does not know its script. The script
    passes its arguments to this process."""
    script, arguments = slurm.command_of(job.job_id), shlex.join(sys.argv[1:])
    if not script:
        return ""
    words = (
        "sbatch",
        f"--nodes={len(job.nodes)}",
        script.removesuffix(arguments).strip(),
        arguments,
    )
    return " ".join(word for word in words if word)


if __name__ == "__main__":
    sys.exit(main())
