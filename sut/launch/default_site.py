"""The site of this machine, used if none is given."""

from __future__ import annotations

import os

from sut.cluster import slurm
from sut.errors import InputError, quoted
from sut.plan import config
from sut.plan.site import Site

VARIABLE = "SUT_SITE"


def default() -> str:
    """The site in SUT_SITE; else the site of this cluster, by the cluster's name or else by its
    nodes; else, without Slurm, ``local``. Raises InputError unless one site matches."""
    if named := os.environ.get(VARIABLE):
        try:
            config.find("sites", named)
        except InputError as error:
            raise InputError(f"{VARIABLE}: {error}") from None
        return named
    if not slurm.is_here():
        return "local"
    fitting = matching(config.sites(), slurm.cluster_name(), slurm.node_names())
    if len(fitting) > 1:
        raise InputError(
            f"several sites match this cluster: {', '.join(fitting)}",
            hint=f"choose one: --site {quoted(fitting[0])}",
        )
    if not fitting:
        raise InputError(
            "no site matches this Slurm cluster",
            hint="write one: python -m sut.init; or run on this machine alone: --site local",
        )
    return fitting[0]


def matching(sites: dict[str, Site], cluster: str, nodes: set[str]) -> list[str]:
    """The sites of a cluster: by its name, or if none has it, by its nodes."""
    clusters = {name: site for name, site in sites.items() if site.slurm is not None}
    by_name = [n for n, site in clusters.items() if site.slurm and site.slurm.cluster == cluster]
    if cluster and by_name:
        return by_name
    return [
        name
        for name, site in clusters.items()
        if site.slurm and not site.slurm.cluster and {node.name for node in site.nodes} <= nodes
    ]
