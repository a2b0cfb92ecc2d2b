"""Placement: which nodes a run uses, and which of their cores and GPUs each replica gets. Pure.

Every node gives the same number of *places*, a place being what one rank of an engine runs on:
a GPU, or on the CPU a share of the node's cores. A replica needs tensor parallel size x pipeline
parallel size of them. It stays on one node where it fits, and else takes several nodes whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sut.plan.benchmark import Engine, EngineKind
from sut.plan.document import nearest
from sut.plan.plan import Node, Part, Replica
from sut.plan.site import Device, Site, SiteNode
from sut.units import quantity
from sut.values import Struct

LOCALHOST = "localhost"


class Placement(Struct, frozen=True, kw_only=True):
    nodes: tuple[Node, ...] = ()
    replicas: tuple[Replica, ...] = ()
    site_nodes: tuple[SiteNode, ...] = ()  # what the site says of each node


def place(
    engine: Engine, site: Site, nodes: str, usable_cpus: Sequence[int], mistakes: list[str]
) -> Placement:
    """Where the replicas of a run go. What stands in the way is added to ``mistakes``.

    ``nodes`` is a number of nodes, names with commas, ``all``, or empty for one.
    ``usable_cpus`` are this machine's, for a site that is this machine.
    """
    before = len(mistakes)
    chosen = _choose(site, nodes, mistakes)
    if len(mistakes) > before:
        return Placement()
    size = engine.tensor_parallel_size * engine.pipeline_parallel_size
    num_places = _places_a_node(site, chosen, size, mistakes)
    num_replicas = _num_replicas(site, chosen, size, num_places, mistakes)
    cpus = [_cpus(engine, site, node, num_places, usable_cpus, mistakes) for node in chosen]
    if len(mistakes) > before:
        return Placement()
    cuda = site.device is Device.CUDA
    return Placement(
        site_nodes=tuple(chosen),
        nodes=tuple(
            Node(name=node.name, cpus=cpus[i], gpus=node.gpus or (num_places if cuda else 0))
            for i, node in enumerate(chosen)
        ),
        replicas=tuple(
            Replica(index=i, parts=_parts(i * size, size, num_places, cpus, cuda))
            for i in range(num_replicas)
        ),
    )


def _choose(site: Site, nodes: str, mistakes: list[str]) -> list[SiteNode]:
    """The nodes of the site that are meant. A node without a name is any."""
    if site.slurm is None:
        if nodes not in ("", "1", "all", LOCALHOST):
            mistakes.append(
                f"site {site.name} is one machine without Slurm, so --nodes {nodes} can't be had. "
                "Name a site with nodes: --site"
            )
        return [SiteNode(name=LOCALHOST)]
    known = {node.name: node for node in site.nodes}
    if not known:
        mistakes.append(f"site {site.name} has slurm: and no nodes:. Name its nodes")
        return []
    if nodes == "all":
        return list(site.nodes)
    if nodes == "" or nodes.isdecimal():
        number = int(nodes or 1)
        if not 0 < number <= len(known):
            mistakes.append(f"--nodes {nodes}: site {site.name} has {len(known)} nodes")
            return []
        return _any_nodes(site, number)
    names = [name for name in nodes.split(",") if name]
    for name in names:
        if name not in known:
            mistakes.append(
                f"--nodes {nodes}: site {site.name} has no node '{name}'{nearest(name, known)}. "
                f"It has {', '.join(known)}"
            )
    if len(set(names)) < len(names):
        mistakes.append(f"--nodes {nodes}: names a node twice")
    # In the site's order, which should be Slurm's own: it numbers a job's nodes by their names.
    return [node for node in site.nodes if node.name in names]


def _any_nodes(site: Site, number: int) -> list[SiteNode]:
    """``number`` nodes; which ones is left to Slurm where they are alike."""
    first = site.nodes[0]
    nameless = [_without_name(node) for node in site.nodes]
    if number == len(nameless) or any(node != nameless[0] for node in nameless):
        return list(site.nodes[:number])
    return [_without_name(first)] * number


def _without_name(node: SiteNode) -> SiteNode:
    return SiteNode(
        name="",
        gpus=node.gpus,
        gpu_memory_gib=node.gpu_memory_gib,
        cpus=node.cpus,
        memory_gib=node.memory_gib,
    )


def _places_a_node(site: Site, chosen: Sequence[SiteNode], size: int, mistakes: list[str]) -> int:
    if site.device is Device.CPU:
        num_replicas = site.num_replicas or max(1, len(chosen) // size)
        return math.ceil(num_replicas * size / len(chosen))
    if site.slurm is None:
        return (site.num_replicas or 1) * size
    counts = {node.gpus for node in chosen}
    if len(counts) > 1 or 0 in counts:
        each = ", ".join(f"{node.name} {node.gpus}" for node in chosen)
        mistakes.append(
            f"site {site.name}: the nodes of a run need the same number of GPUs, and they have: "
            f"{each}. Choose others with --nodes"
        )
    return max(counts)


def _num_replicas(
    site: Site, chosen: Sequence[SiteNode], size: int, num_places: int, mistakes: list[str]
) -> int:
    """How many replicas there are: what the site says, or as many as fit."""
    what = "GPUs" if site.device is Device.CUDA else "places"
    total = len(chosen) * num_places
    fits = total // size
    if num_places > 0 and size > num_places and size % num_places != 0:
        mistakes.append(
            f"a replica of {size} ranks (tensor_parallel_size x pipeline_parallel_size) can't be "
            f"spread evenly over nodes of {num_places} {what}"
        )
    elif fits == 0:
        mistakes.append(
            f"a replica needs {size} {what} (tensor_parallel_size x pipeline_parallel_size) and "
            f"{quantity(len(chosen), 'nodes')} of {num_places} give {total}. "
            f"Take more nodes: --nodes {math.ceil(size / max(1, num_places))}"
        )
    elif site.num_replicas is not None and site.num_replicas > fits:
        mistakes.append(
            f"site.num_replicas is {site.num_replicas}; {total} {what} hold {fits} replicas of "
            f"{size} each"
        )
    elif site.num_replicas is None and total % size != 0:
        mistakes.append(
            f"replicas of {size} ranks (tensor_parallel_size x pipeline_parallel_size) leave "
            f"{total % size} of {total} {what} idle. If that is meant: "
            f"--set site.num_replicas={fits}"
        )
    elif size < num_places and num_places % size != 0:
        mistakes.append(
            f"replicas of {size} ranks do not divide a node's {num_places} {what} evenly"
        )
    return site.num_replicas or fits


def _cpus(
    engine: Engine,
    site: Site,
    node: SiteNode,
    num_places: int,
    usable_cpus: Sequence[int],
    mistakes: list[str],
) -> tuple[int, ...]:
    """The cores that a node's engines share; empty for all of them, or where none is needed."""
    if engine.kind is EngineKind.REPLAY or site.device is Device.CUDA:
        return ()
    local = site.slurm is None
    cpus = node.cpus or site.cpu.cpus or (tuple(usable_cpus) if local else ())
    where = f"site {site.name}" if local else f"site {site.name}, node {node.name or 'any'}"
    if local and (unusable := sorted(set(cpus) - set(usable_cpus))):
        mistakes.append(
            f"{where}: cpu.cpus names {_list(unusable)}; this machine lets us use "
            f"{_list(usable_cpus)}"
        )
    if len(set(cpus)) < len(cpus):
        mistakes.append(f"{where}: cpus names a core twice")
    if not cpus and num_places > 1:
        mistakes.append(f"{where}: {num_places} engines share it, so its cpus must be listed")
    elif cpus and len(cpus) < num_places:
        mistakes.append(
            f"{where}: {num_places} replicas need a core each, and there are {len(cpus)}"
        )
    return cpus


def _parts(
    first: int, size: int, num_places: int, cpus: Sequence[tuple[int, ...]], cuda: bool
) -> tuple[Part, ...]:
    """The places ``first`` to ``first + size``, counted through all nodes, node by node."""
    parts = []
    while size > 0:
        node, place = divmod(first, num_places)
        count = min(size, num_places - place)
        share = len(cpus[node]) // num_places
        parts.append(
            Part(
                node=node,
                cpus=cpus[node][place * share : (place + count) * share],
                gpus=tuple(range(place, place + count)) if cuda else (),
            )
        )
        first, size = first + count, size - count
    return tuple(parts)


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
