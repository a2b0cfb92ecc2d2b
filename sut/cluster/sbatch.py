"""A plan as submitit's parameters: the only module that knows sbatch's options. Pure."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from sut.plan.plan import Plan, Slurm
from sut.rundir import RunDir
from sut.values import Struct


class Submission(Struct, frozen=True, kw_only=True):
    """When a job may start, by sbatch's names. Not part of the plan."""

    begin: str = ""  # e.g. 02:00, now+1hour
    dependency: str = ""  # e.g. singleton, afterany:123


def parameters(
    plan: Plan, run_dir: RunDir, submission: Submission, exclude: Sequence[str] = ()
) -> dict[str, Any]:
    """The arguments of ``submitit.SlurmExecutor.update_parameters`` for a run. ``exclude`` are the
    nodes that Slurm must not choose."""
    asked = plan.slurm
    assert asked is not None
    given = {
        "job_name": f"sut-{plan.benchmark}-{plan.scenario}",
        "comment": str(run_dir),  # from a job id to its files
        "nodes": len(plan.nodes),
        "ntasks_per_node": 1,
        "time": asked.time_min,
        "signal_delay_s": asked.signal_delay_s,
        "stderr_to_stdout": True,
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "gres": asked.gres,
        "nodelist": ",".join(node.name for node in plan.nodes if node.name),
        "exclude": ",".join(exclude),
        "cpus_per_task": asked.cpus_per_task,
        "exclusive": asked.exclusive,
        "dependency": submission.dependency,
    }
    return {
        **{name: value for name, value in given.items() if value},
        "wckey": None,
        "setup": _setup(asked, run_dir),
        # A failed task ends the others at once.
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": _additional(asked, submission),
    }


def _setup(asked: Slurm, run_dir: RunDir) -> list[str]:
    """Lines before srun: the requeue at the script's end, and the cores (since Slurm 22.05 srun
    ignores SLURM_CPUS_PER_TASK)."""
    last = shlex.join([sys.executable, "-m", "sut.requeue", str(run_dir)])
    lines = [f"trap {shlex.quote(last)} EXIT"]
    if asked.cpus_per_task:
        lines.append('export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
    return lines


def _additional(asked: Slurm, submission: Submission) -> dict[str, Any]:
    options: dict[str, Any] = {
        "requeue": True,
        "open-mode": "append",  # a requeued job keeps its earlier output
        # submitit takes whole GB only. 0 is all of a node's memory; exclusive alone is not.
        "mem": f"{asked.memory_gib}G" if asked.memory_gib else "0",
    }
    if submission.begin:
        options["begin"] = submission.begin
    return {**options, **asked.sbatch}
