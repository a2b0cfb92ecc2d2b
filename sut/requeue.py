"""The end of a job: ``python -m sut.requeue RUN_DIR`` requeues one that lost a node, and records a
run that none of its nodes could record.

The last command of a batch script, on the script's node. It runs after the step has ended: when a
node is lost, ``srun`` may end the step at any moment after the run wrote its record.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sut.cluster import slurm
from sut.cluster.allocation import Allocation
from sut.command import command, run_dir_of
from sut.errors import EXIT_VALID, NODE_LOST
from sut.launch import node
from sut.plan.plan import load_plan
from sut.results import record
from sut.rundir import RunDir


@command
def main(argv: Sequence[str] | None = None) -> int:
    description = "Requeue this Slurm job if its run lost a node."
    run_dir, here = run_dir_of(argv, "sut.requeue", description), node.here()
    if not slurm.has_steps(here.job_id):  # a signal may end the script before its step
        node.close_unrecorded(run_dir, here)
    after_a_lost_node(run_dir, here)
    return EXIT_VALID


def after_a_lost_node(run_dir: RunDir, here: Allocation) -> None:
    """Requeue the job if this attempt failed with ``node_lost``, up to the site's
    ``max_requeues``. Raises SutError."""
    plan = load_plan(run_dir.plan)
    if plan.slurm is None or not run_dir.record.is_file():
        return
    attempt = record.read(run_dir.record).attempts[-1]
    of_this = (attempt.job_id, attempt.restart) == (here.job_id, here.attempt)
    if not of_this or attempt.failure is None or attempt.failure.code != NODE_LOST:
        return
    if here.attempt >= plan.slurm.max_requeues:
        print(
            f"not requeueing job {here.job_id}: already requeued {here.attempt} times "
            "(slurm.max_requeues)",
            file=sys.stderr,
        )
        return
    print(f"requeueing job {here.job_id}: {attempt.failure.first_line}", file=sys.stderr)
    slurm.requeue(here.job_id)


if __name__ == "__main__":
    sys.exit(main())
