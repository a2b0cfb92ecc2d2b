"""The end of a job: ``python -m sut.requeue RUN_DIR`` requeues one that lost a node, records a run
that none of its nodes could record, and runs the command of --notify.

The last command of a batch script, on the script's node. It runs after the step has ended: when a
node is lost, ``srun`` may end the step at any moment after the run wrote its record.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from sut import messages
from sut.cluster import sbatch, slurm
from sut.cluster.allocation import Allocation
from sut.command import command_of_run, run_dir_of
from sut.errors import EXIT_VALID, NODE_LOST, SutError
from sut.launch import node
from sut.plan.plan import load_plan
from sut.results import record
from sut.rundir import RunDir
from sut.watch import notify


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    description = "Requeue this Slurm job if its run lost a node; else notify of the run's end."
    run_dir, here = run_dir_of(argv, "sut.requeue", description), node.here()
    if not slurm.has_steps(here.job_id):  # a signal may end the script before its step
        node.close_unrecorded(run_dir, here, _code_of_signal())
    end(run_dir, here)
    return EXIT_VALID


def _code_of_signal() -> int | None:
    """The code of a script that was signalled; None for one that was not."""
    name = os.environ.get(sbatch.SIGNALLED)
    return 128 + signal.Signals[name] if name else None


def end(run_dir: RunDir, here: Allocation) -> None:
    """Requeue the job after a lost node, or run the command of --notify unless Slurm requeues the
    job itself. A failure to notify is reported on standard error. Raises SutError."""
    requeued = False
    try:
        requeued = after_a_lost_node(run_dir, here)
    finally:
        if not requeued:
            _notify(run_dir, here)


def _notify(run_dir: RunDir, here: Allocation) -> None:
    try:
        if _is_last(run_dir, here):
            notify.send(run_dir)
    except SutError as error:
        messages.report(f"warning: nobody was notified: {error}")


def _is_last(run_dir: RunDir, here: Allocation) -> bool:
    """Whether no attempt follows and somebody waits for the end; Slurm is asked only then."""
    return run_dir.notices.is_file() and not slurm.is_preempted(here.job_id)


def after_a_lost_node(run_dir: RunDir, here: Allocation) -> bool:
    """Requeue the job if this attempt failed with ``node_lost``, up to the site's
    ``max_requeues``. Returns whether it was requeued. Raises SutError."""
    plan = load_plan(run_dir.plan)
    if plan.slurm is None or not run_dir.record.is_file():
        return False
    attempt = record.read(run_dir.record).attempts[-1]
    of_this = (attempt.job_id, attempt.restart) == (here.job_id, here.attempt)
    if not of_this or attempt.failure is None or attempt.failure.code != NODE_LOST:
        return False
    if here.attempt >= plan.slurm.max_requeues:
        print(
            f"not requeueing job {here.job_id}: already requeued {here.attempt} times "
            "(slurm.max_requeues)",
            file=sys.stderr,
        )
        return False
    print(f"requeueing job {here.job_id}: {attempt.failure.first_line}", file=sys.stderr)
    slurm.requeue(here.job_id)
    return True


if __name__ == "__main__":
    sys.exit(main())
