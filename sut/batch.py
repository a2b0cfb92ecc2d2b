"""What a batch script runs: ``python -m sut.batch [RUN_DIR | options of sut.submit]``.

Inside a Slurm job, on its first node: takes the run directory that is given, or makes one for the
nodes the job has, starts ``sut.job`` on each of them with ``srun``, and requeues the job where a
node was lost.
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
Inside a Slurm job: make a run for the nodes that the job has, or take the one that is given, start
it on each of them and wait. The scripts in slurm/ do: sbatch slurm/single.sh [...]"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code is the run's."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if has_helped("sut.batch", arguments):
        return EXIT_VALID
    return run(arguments)[1]


def has_helped(module: str, arguments: Sequence[str]) -> bool:
    """Print the help of a command with our arguments, if it is asked for."""
    if {"-h", "--help"}.isdisjoint(arguments):
        return False
    print(f"usage: python -m {module} [RUN_DIR | options of python -m sut.submit]\n\n{HELP}")
    return True


def run(arguments: list[str]) -> tuple[RunDir, int]:
    """The run directory, and the exit code of its run once it is over. Raises SutError."""
    job = _job(os.environ)
    run_dir = _run_dir(arguments, job)
    slurm.set_comment(job.job_id, str(run_dir))
    print(f"job {job.job_id} on {', '.join(job.nodes)}: {run_dir}", flush=True)
    code = wait(srun(run_dir, len(job.nodes)), {**os.environ, **environment(os.environ)})
    requeue.after_a_lost_node(run_dir, job)
    return run_dir, code


def srun(run_dir: RunDir, num_nodes: int) -> list[str]:
    """The command that starts the run on every node of the job. One task that fails ends all."""
    words = ["srun", f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
    words += ["--unbuffered", "--kill-on-bad-exit=1"]
    return [*words, sys.executable, "-u", "-m", "sut.job", str(run_dir)]


def environment(of_batch: Mapping[str, str]) -> dict[str, str]:
    """What srun needs on top: since Slurm 22.05 it does not look at SLURM_CPUS_PER_TASK."""
    cpus = of_batch.get("SLURM_CPUS_PER_TASK")
    return {"SRUN_CPUS_PER_TASK": cpus} if cpus else {}


def _job(environment: Mapping[str, str]) -> Allocation:
    if not environment.get("SLURM_JOB_ID"):
        raise InputError(
            "this is no Slurm job. Submit a batch script: sbatch slurm/single.sh; "
            "or let submitit make one: python -m sut.submit"
        )
    return allocation.of_process({**environment, **slurm.handed_on(environment)})


def _run_dir(arguments: list[str], job: Allocation) -> RunDir:
    if arguments and not arguments[0].startswith("-"):
        given = RunDir(arguments[0])
        if len(arguments) > 1 or not given.plan.is_file():
            raise InputError(
                f"{arguments[0]}: give one run directory, which holds plan.json, or options of "
                "python -m sut.submit"
            )
        # What every node would refuse is refused here: of several that fail, srun ends the slower
        # ones, and its exit code is then theirs.
        plan = load_plan(given.plan)
        allocation.check(plan, job)
        _require_unused(given, attempts.earlier(plan, given), job)
        return given
    options = parse(arguments)
    if options.begin or options.dependency or options.again or options.nodes:
        raise InputError(
            "--begin, --dependency and --nodes are sbatch's here, before the script's name; a run "
            "once more is submitted by itself: python -m sut.submit --again RUN_DIR"
        )
    if options.dry_run or options.wait is not None:
        raise InputError("--dry-run and --wait are for python -m sut.submit: this job has begun")
    options.nodes = ",".join(job.nodes)
    plan, run_root = make_plan(request_of(options))
    return _of_this_job(plan, run_root, job)


def _require_unused(run_dir: RunDir, before: attempts.Earlier, job: Allocation) -> None:
    """Raise InputError where another job has the run directory, at work or requeued."""
    last = before.attempts[-1] if before.attempts else None
    if last is None or last.job_id in ("", job.job_id):
        return
    state = slurm.job_state(last.job_id)
    if state is not None and state.alive:
        raise InputError(
            f"{run_dir}: job {last.job_id} is {state.state} and has this run directory. Wait "
            f"for its end, or: scancel {last.job_id}"
        )


def _of_this_job(plan: Plan, run_root: Path, job: Allocation) -> RunDir:
    """A new run directory, or that of the job's earlier attempt, where it goes on.

    A job of scrontab is requeued every time it is due, whatever became of its earlier run.
    """
    link = runs.job_link(run_root, job.job_id)
    earlier = RunDir(link)
    if job.attempt > 0 and earlier.plan.is_file():
        same = load_plan(earlier.plan).digest() == plan.digest()
        if same and attempts.was_interrupted(earlier):
            return earlier
    run_dir = newrun.create(plan, run_root)
    link.unlink(missing_ok=True)
    link.symlink_to(run_dir.root.name)
    return run_dir


if __name__ == "__main__":
    sys.exit(main())
