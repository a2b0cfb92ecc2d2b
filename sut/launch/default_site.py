"""Which site this is, where none is named."""

from __future__ import annotations

import os

from sut.cluster import slurm
from sut.errors import InputError
from sut.plan import config
from sut.plan.site import Site

VARIABLE = "SUT_SITE"


def default() -> str:
    """The site named in SUT_SITE; else the one whose cluster this is, by the cluster's name or
    else by its nodes; else ``local``. Raises InputError where several fit."""
    if named := os.environ.get(VARIABLE):
        return named
    if not slurm.is_here():
        return "local"
    fitting = matching(config.sites(), slurm.cluster_name(), slurm.node_names())
    if len(fitting) > 1:
        raise InputError(
            f"several sites fit this cluster: {', '.join(fitting)}. Name one: --site {fitting[0]}"
        )
    if not fitting:
        raise InputError(
            "this is a Slurm cluster and no site describes it. Copy configs/sites/template.yaml, "
            "fill it in and give it with --site; --site local runs on this machine alone"
        )
    return fitting[0]


def matching(sites: dict[str, Site], cluster: str, nodes: set[str]) -> list[str]:
    """The sites that describe this cluster: by its name, or where none does by its nodes."""
    clusters = {name: site for name, site in sites.items() if site.slurm is not None}
    by_name = [n for n, site in clusters.items() if site.slurm and site.slurm.cluster == cluster]
    if cluster and by_name:
        return by_name
    return [
        name
        for name, site in clusters.items()
        if site.slurm and not site.slurm.cluster and {node.name for node in site.nodes} <= nodes
    ]
