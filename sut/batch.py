"""What a batch script runs: ``python -m sut.batch [RUN_DIR | options of sut.submit]``.

Inside a Slurm job, on its first node: takes the run directory that is given, or makes one for the
nodes the job has, and becomes the ``srun`` that starts ``sut.job`` on each of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut import allocation, newrun, resume, slurm
from sut import job as host
from sut.allocation import Allocation
from sut.errors import InputError, SutError
from sut.plan import Plan, load_plan
from sut.planning import make_plan
from sut.rundir import RunDir
from sut.submit import parse, request_of


def main(argv: Sequence[str] | None = None) -> int:
    """Returns only with an error: srun takes this process."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        command = _prepared(arguments)[1]
        os.execvp(command[0], command)
    except SutError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def run(arguments: list[str]) -> tuple[RunDir, int]:
    """The run directory, and the exit code of its run once it is over. Raises SutError."""
    run_dir, command = _prepared(arguments)
    return run_dir, subprocess.call(command)


def _prepared(arguments: list[str]) -> tuple[RunDir, list[str]]:
    """The run directory, and the command that starts its run on every node of the job."""
    job = _job(os.environ)
    run_dir = _run_dir(arguments, job)
    slurm.set_comment(job.job_id, str(run_dir))
    print(f"job {job.job_id} on {', '.join(job.nodes)}: {run_dir}", flush=True)
    os.environ |= environment(os.environ)
    return run_dir, srun(run_dir, len(job.nodes))


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
        host.check_allocation(plan, job)
        resume.earlier(plan, given)
        return given
    options = parse(arguments)
    if options.begin or options.dependency or options.again or options.nodes:
        raise InputError(
            "--begin, --dependency and --nodes are sbatch's here, before the script's name; for a "
            "run once more give its new directory: python -m sut.submit --again RUN_DIR"
        )
    options.nodes = ",".join(job.nodes)
    plan, run_root = make_plan(request_of(options))
    return _of_this_job(plan, run_root, job)


def _of_this_job(plan: Plan, run_root: Path, job: Allocation) -> RunDir:
    """A new run directory, or that of the job's earlier attempt, where it goes on."""
    link = run_root / f".job-{job.job_id}"
    if job.attempt > 0 and (link / "plan.json").is_file():
        earlier = RunDir(link)
        if load_plan(earlier.plan).digest() == plan.digest():
            return earlier
    run_dir = newrun.create(plan, run_root)
    link.unlink(missing_ok=True)
    link.symlink_to(run_dir.root.name)
    return run_dir


if __name__ == "__main__":
    sys.exit(main())
