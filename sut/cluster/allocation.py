"""The allocation: the Slurm job that this process belongs to.

A container has no Slurm commands. :mod:`sut.cluster.host` therefore expands the node list on the
host and forwards these variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sut.cluster import sbatch
from sut.errors import InputError
from sut.plan.hostlist import compact
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.units import quantity
from sut.values import Struct

NODES = "SUT_NODES"  # the job's nodes, in the order of SLURM_NODEID, with commas
IMAGE_SHA256 = "SUT_IMAGE_SHA256"  # of the image that this process runs in
FORWARDED = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_NODEID", NODES, IMAGE_SHA256)


class Allocation(Struct, frozen=True, kw_only=True):
    """``job_id`` is empty outside of a job; ``attempt`` is Slurm's restart count; ``node`` is the
    index of this node in ``nodes``, which are names."""

    job_id: str = ""
    attempt: int = 0
    node: int = 0
    nodes: tuple[str, ...] = ("localhost",)
    image_sha256: str | None = None

    @property
    def key(self) -> str:
        """An identifier of this attempt, unique among jobs and attempts."""
        return f"{self.job_id or os.getpid()}-{self.attempt}"


def of_process(environment: Mapping[str, str] = os.environ) -> Allocation:
    names = environment.get(NODES, "")
    return Allocation(
        job_id=environment.get("SLURM_JOB_ID", ""),
        attempt=int(environment.get("SLURM_RESTART_COUNT") or 0),
        node=int(environment.get("SLURM_NODEID") or 0) if names else 0,
        nodes=tuple(names.split(",")) if names else ("localhost",),
        image_sha256=environment.get(IMAGE_SHA256) or None,
    )


def check(plan: Plan, here: Allocation, run_dir: RunDir) -> None:
    """Raise InputError unless the job has exactly the nodes of the plan, in the plan's order."""
    if plan.slurm is not None and not here.job_id:
        raise InputError(
            f"this process is not in a Slurm job, which the plan for site {plan.site} requires",
            hint=sbatch.continuing(plan, run_dir),
        )
    wanted = [node.name for node in plan.nodes]
    if len(wanted) == len(here.nodes) and (plan.slurm is None or _matches(plan, here.nodes)):
        return
    if plan.slurm is None and len(wanted) == 1:
        raise InputError(
            f"site {plan.site} is a single machine, but job {here.job_id} has "
            f"{quantity(len(here.nodes), 'nodes')}",
            hint="request one node (sbatch --nodes=1), or choose a site with nodes: --site NAME",
        )
    if sorted(wanted) == sorted(here.nodes):
        raise InputError(
            f"site {plan.site} lists its nodes in another order than Slurm: {compact(wanted)}, "
            f"not {compact(here.nodes)}",
            hint="reorder nodes: in the site's file, then submit again",
        )
    raise InputError(
        f"the plan is for {quantity(len(wanted), 'nodes')} ({plan.nodes_text() or 'any'}), but job "
        f"{here.job_id} has {len(here.nodes)} ({compact(here.nodes)})",
        hint=sbatch.continuing(plan, run_dir),
    )


def _matches(plan: Plan, nodes: Sequence[str]) -> bool:
    candidates = {node.name for node in plan.candidates}
    if candidates:
        return candidates.issuperset(nodes)
    return all(node.name in ("", given) for node, given in zip(plan.nodes, nodes, strict=True))
