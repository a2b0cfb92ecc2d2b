"""The allocation: what Slurm says of the job that this process is part of.

Inside a container Slurm's commands are missing, so ``sut.job`` expands the node list on the host
and hands everything on in these variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sut.errors import InputError
from sut.plan.plan import Plan
from sut.units import quantity
from sut.values import Struct

NODES = "SUT_NODES"  # the job's nodes, in the order of SLURM_NODEID, with commas
IMAGE_SHA256 = "SUT_IMAGE_SHA256"  # of the image this process runs in
HANDED_ON = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_NODEID", NODES, IMAGE_SHA256)


class Allocation(Struct, frozen=True, kw_only=True):
    """``job_id`` is empty outside of Slurm; ``attempt`` counts how often Slurm requeued the job;
    ``node`` is this node's place in ``nodes``, which are names."""

    job_id: str = ""
    attempt: int = 0
    node: int = 0
    nodes: tuple[str, ...] = ("localhost",)
    image_sha256: str | None = None

    @property
    def key(self) -> str:
        """A word for this attempt of this job, which no other attempt has."""
        return f"{self.job_id or os.getpid()}-{self.attempt}"


def of_process(environment: Mapping[str, str] = os.environ) -> Allocation:
    """The allocation that ``environment`` tells of."""
    names = environment.get(NODES, "")
    return Allocation(
        job_id=environment.get("SLURM_JOB_ID", ""),
        attempt=int(environment.get("SLURM_RESTART_COUNT") or 0),
        node=int(environment.get("SLURM_NODEID") or 0) if names else 0,
        nodes=tuple(names.split(",")) if names else ("localhost",),
        image_sha256=environment.get(IMAGE_SHA256) or None,
    )


def check(plan: Plan, here: Allocation) -> None:
    """Raise InputError unless the job has the nodes of the plan: no fewer, no others, and in the
    plan's order."""
    if plan.slurm is not None and not here.job_id:
        raise InputError(
            f"the plan is for nodes of site {plan.site} and this is no Slurm job. "
            "Submit it: sbatch slurm/multi.sh RUN_DIR"
        )
    wanted = [node.name for node in plan.nodes]
    if len(wanted) == len(here.nodes) and (
        plan.slurm is None
        or all(name in ("", given) for name, given in zip(wanted, here.nodes, strict=True))
    ):
        return
    if plan.slurm is None and len(wanted) == 1:
        raise InputError(
            f"site {plan.site} is one machine and job {here.job_id} has {len(here.nodes)} nodes. "
            "Take a job of one node, or a site that has these: --site"
        )
    if sorted(wanted) == sorted(here.nodes):
        raise InputError(
            f"Slurm numbers the job's nodes {', '.join(here.nodes)} and site {plan.site} lists "
            f"them {', '.join(wanted)}. Put them in Slurm's order in the site's file and submit "
            "anew"
        )
    named = ",".join(filter(None, wanted))
    raise InputError(
        f"the plan is for {quantity(len(wanted), 'nodes')} "
        f"({', '.join(name or 'any' for name in wanted)}) and job {here.job_id} has "
        f"{len(here.nodes)} ({', '.join(here.nodes)}). Ask for those: "
        f"sbatch --nodes={len(wanted)}{named and f' --nodelist={named}'}"
    )
