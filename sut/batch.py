"""What a batch script runs: ``python -m sut.batch [RUN_DIR | options of sut.submit]``.

Runs on the first node of a Slurm job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut import requeue
from sut.cluster import allocation, runs, slurm
from sut.cluster.allocation import Allocation
from sut.cluster.host import wait
from sut.command import command
from sut.errors import EXIT_VALID, InputError
from sut.launch import newrun
from sut.launch.request import make_plan, parse, request_of
from sut.plan.plan import Plan, load_plan
from sut.results import attempts
from sut.rundir import RunDir

HELP = """\
Run on every node of this Slurm job and wait. Creates a run for the nodes of the job, or takes
RUN_DIR. The scripts in slurm/ call it: sbatch slurm/single.sh [...]

exit codes: those of python -m sut.submit"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if print_help_if_asked("sut.batch", arguments):
        return EXIT_VALID
    return run(arguments)[1]


def print_help_if_asked(module: str, arguments: Sequence[str], text: str = HELP) -> bool:
    if {"-h", "--help"}.isdisjoint(arguments):
        return False
    print(f"usage: python -m {module} [RUN_DIR | options of python -m sut.submit]\n\n{text}")
    return True


def run(arguments: list[str]) -> tuple[RunDir, int]:
    """The run directory, and the exit code of its run when it has finished. Raises SutError."""
    job = _job(os.environ)
    run_dir = _run_dir(arguments, job)
    slurm.set_comment(job.job_id, str(run_dir))
    print(f"job {job.job_id} on {', '.join(job.nodes)}: {run_dir}", flush=True)
    code = wait(srun(run_dir, len(job.nodes)), {**os.environ, **srun_environment(os.environ)})
    requeue.after_a_lost_node(run_dir, job)
    return run_dir, code


def srun(run_dir: RunDir, num_nodes: int) -> list[str]:
    """The command that starts the run on every node; a task that fails ends the others."""
    words = ["srun", f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
    words += ["--unbuffered", "--kill-on-bad-exit=1"]
    return [*words, sys.executable, "-u", "-m", "sut.job", str(run_dir)]


def srun_environment(of_batch: Mapping[str, str]) -> dict[str, str]:
    """Variables to add for srun: since Slurm 22.05 it ignores SLURM_CPUS_PER_TASK."""
    cpus = of_batch.get("SLURM_CPUS_PER_TASK")
    return {"SRUN_CPUS_PER_TASK": cpus} if cpus else {}


def _job(environment: Mapping[str, str]) -> Allocation:
    if not environment.get("SLURM_JOB_ID"):
        raise InputError(
            "this process is not in a Slurm job",
            hint="submit a job: sbatch slurm/single.sh, or: python -m sut.submit",
        )
    return allocation.of_process({**environment, **slurm.forwarded_env(environment)})


def _run_dir(arguments: list[str], job: Allocation) -> RunDir:
    if arguments and not arguments[0].startswith("-"):
        return _given(arguments, job)
    options = parse(arguments)
    unusable = {
        "--begin": options.begin,
        "--dependency": options.dependency,
        "--nodes": options.nodes,
        "--again": options.again,
        "--dry-run": options.dry_run,
        "--wait": options.wait is not None,
        "--json": options.json,
    }
    if given := [name for name, value in unusable.items() if value]:
        raise InputError(
            f"{', '.join(given)} cannot be used inside a job",
            hint="give --begin, --dependency and --nodes to sbatch (sbatch --nodes=2 "
            "slurm/multi.sh), the others to python -m sut.submit",
        )
    options.nodes = ",".join(job.nodes)
    plan, run_root = make_plan(request_of(options))
    return _of_this_job(plan, run_root, job)


def _given(arguments: list[str], job: Allocation) -> RunDir:
    """The run directory on the command line. Raises InputError where the job cannot run it: if
    each node refused it, srun would end the slower ones and return their exit code."""
    given = RunDir(arguments[0])
    if len(arguments) > 1:
        raise InputError(
            f"unexpected arguments after {arguments[0]}: {' '.join(arguments[1:])}",
            hint="give one run directory, or options of python -m sut.submit",
        )
    plan = load_plan(given.plan)
    allocation.check(plan, job)
    _require_unused(given, attempts.earlier(plan, given), job)
    return given


def _require_unused(run_dir: RunDir, before: attempts.Earlier, job: Allocation) -> None:
    """Raise InputError where another job, running or requeued, uses the run directory."""
    last = before.attempts[-1] if before.attempts else None
    if last is None or last.job_id in ("", job.job_id):
        return
    state = slurm.job_state(last.job_id)
    if state is not None and state.alive:
        raise InputError(
            f"the run directory is in use ({run_dir}): job {last.job_id} is {state.state}",
            hint=f"wait until the job has finished, or: scancel {last.job_id}",
        )


def _of_this_job(plan: Plan, run_root: Path, job: Allocation) -> RunDir:
    """A new run directory, or that of the job's earlier attempt if it was interrupted.

    scrontab requeues a job whenever it is due, even after a completed run.
    """
    link = runs.job_link(run_root, job.job_id)
    earlier = RunDir(link)
    if job.attempt > 0 and earlier.plan.is_file():
        same = load_plan(earlier.plan).digest() == plan.digest()
        if same and attempts.was_interrupted(earlier):
            return earlier
    run_dir = newrun.create(plan, run_root, _command(job))
    link.unlink(missing_ok=True)
    link.symlink_to(run_dir.root.name)
    return run_dir


def _command(job: Allocation) -> str:
    """The job as it can be submitted again; empty if Slurm does not know its script."""
    script = slurm.command_of(job.job_id)
    return f"sbatch --nodes={len(job.nodes)} {script}" if script else ""


if __name__ == "__main__":
    sys.exit(main())
