"""Which nodes of a site ``--nodes`` selects. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sut.errors import Errors, nearest
from sut.plan.hostlist import HostlistError, compact, expand
from sut.plan.site import Site, SiteNode
from sut.units import quantity

LOCALHOST = "localhost"


class Selection(NamedTuple):
    """``number`` of the ``pool``, in the site's order: all of it, or those that Slurm chooses."""

    pool: Sequence[SiteNode]
    number: int


def select(site: Site, nodes: str, errors: Errors) -> Selection:
    """The nodes of the site that ``nodes`` selects: a number, a hostlist, ``all``, or empty for
    one. The pool is empty after adding to ``errors``."""
    if site.slurm is None:
        if nodes not in ("", "1", "all", LOCALHOST):
            errors.add(
                f"--nodes {nodes} needs a Slurm site; site {site.name} is a single machine",
                hint="choose a site that has nodes: --site NAME",
            )
        return Selection([SiteNode(name=LOCALHOST)], 1)
    if not site.nodes:
        errors.add(
            f"site {site.name} has slurm: but no nodes:",
            hint="list the cluster's nodes under nodes: in the site's file",
        )
        return Selection([], 0)
    if nodes == "all":
        return Selection(site.nodes, len(site.nodes))
    if nodes == "" or nodes.isdecimal():
        return _number(site, int(nodes or 1), errors)
    return _named(site, nodes, errors)


def _number(site: Site, number: int, errors: Errors) -> Selection:
    """The first nodes that have the same number of GPUs, if there are ``number`` of them."""
    if not 0 < number <= len(site.nodes):
        errors.add(
            f"--nodes {number}: site {site.name} has {quantity(len(site.nodes), 'nodes')}",
            hint=f"choose 1 to {len(site.nodes)}: --nodes {len(site.nodes)}",
        )
        return Selection([], 0)
    for gpus in dict.fromkeys(node.gpus for node in site.nodes):
        alike = [node for node in site.nodes if node.gpus == gpus]
        if len(alike) >= number:
            return Selection(alike, number)
    return Selection(site.nodes[:number], number)


def _named(site: Site, nodes: str, errors: Errors) -> Selection:
    known = {node.name: node for node in site.nodes}
    try:
        names = expand(nodes)
    except HostlistError as error:
        errors.add(
            f"--nodes {nodes}: {error}",
            hint=f"give a number, all, or nodes of site {site.name}: --nodes '{compact(known)}'",
        )
        return Selection([], 0)
    for name in names:
        if name not in known:
            errors.add(
                f"--nodes {nodes}: site {site.name} has no node '{name}'{nearest(name, known)}",
                hint=f"choose from: {compact(known)}",
            )
    # In the site's order, which must be Slurm's own: Slurm numbers the nodes of a job by name.
    chosen = [node for node in site.nodes if node.name in names]
    return Selection(chosen, len(chosen))
