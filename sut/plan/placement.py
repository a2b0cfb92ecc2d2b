"""Placement: which nodes a run uses, and which cores and GPUs of them each replica gets. Pure.

Every node has the same number of *places*. A place is what one rank of an engine runs on: a GPU,
or on the CPU a share of the node's cores. A replica needs tensor parallel size x pipeline parallel
size places. It is on one node if it fits there; otherwise it takes several whole nodes.

Where Slurm chooses the nodes, the plan lists those it may choose from, and :func:`on_nodes` gives
the replicas their cores in the job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from sut.errors import Errors
from sut.plan.benchmark import Engine, EngineKind
from sut.plan.plan import Node, Part, Plan, Replica
from sut.plan.selection import select
from sut.plan.site import Device, Site, SiteNode
from sut.units import quantity
from sut.values import Struct

_RANKS = "tensor_parallel_size x pipeline_parallel_size"


class Placement(Struct, frozen=True, kw_only=True):
    """``candidates`` are the nodes that Slurm may choose from; empty if ``nodes`` have names."""

    nodes: tuple[Node, ...] = ()
    candidates: tuple[Node, ...] = ()
    replicas: tuple[Replica, ...] = ()
    site_nodes: tuple[SiteNode, ...] = ()  # the site's entry of each node, or of each candidate


def place(
    engine: Engine,
    site: Site,
    nodes: str,
    usable_cpus: Sequence[int],
    errors: Errors,
    fits: Callable[[SiteNode], bool] = lambda _: True,
) -> Placement:
    """The nodes of a run and the replicas on them; empty after adding to ``errors``.

    ``nodes`` is a number of nodes, a hostlist, ``all``, or empty for one. ``usable_cpus`` are this
    machine's, for a site without Slurm. Slurm may choose only nodes that the model ``fits`` on.
    """
    before = len(errors)
    pool, number = select(site, nodes, errors)
    if len(errors) > before:
        return Placement()
    size = engine.tensor_parallel_size * engine.pipeline_parallel_size
    num_places = _places_per_node(site, pool[:number], size, errors)
    num_replicas = _num_replicas(site, pool[:number], size, num_places, errors)

    def cores(node: SiteNode, problems: Errors) -> tuple[int, ...]:
        return _cpus(engine, site, node, num_places, usable_cpus, problems)

    able = [node for node in pool if fits(node) and _no_problem(cores, node)]
    pool = able if len(able) >= number else pool[:number]
    cpus = [cores(node, errors) for node in pool]
    if len(errors) > before:
        return Placement()
    cuda = site.device is Device.CUDA
    known = tuple(
        Node(name=node.name, cpus=cpus[i], gpus=node.gpus or (num_places if cuda else 0))
        for i, node in enumerate(pool)
    )
    free = len(pool) > number
    return Placement(
        nodes=(Node(gpus=known[0].gpus),) * number if free else known,
        candidates=known if free else (),
        replicas=_replicas(num_replicas, size, num_places, [()] * number if free else cpus, cuda),
        site_nodes=tuple(pool),
    )


def on_nodes(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan on the nodes of its job: those that Slurm chose get their names and their cores.
    ``names`` are candidates of the plan, in the order of SLURM_NODEID."""
    if not plan.candidates:
        return plan
    known = {node.name: node for node in plan.candidates}
    nodes = tuple(known[name] for name in names)
    size = plan.engine.tensor_parallel_size * plan.engine.pipeline_parallel_size
    ranks = [
        plan.ranks_per_part(replica.index)
        for replica in plan.replicas
        for part in replica.parts
        if part.node == 0  # the first node has a rank on each of its places
    ]
    cpus = [node.cpus for node in nodes]
    cuda = plan.device is Device.CUDA
    replicas = _replicas(len(plan.replicas), size, sum(ranks), cpus, cuda)
    return msgspec.structs.replace(plan, nodes=nodes, candidates=(), replicas=replicas)


def gpus_of(plan: Plan, node: int) -> tuple[int, ...]:
    """The GPUs that a run uses on a node, as places among those that its job may use there."""
    parts = [part for replica in plan.replicas for part in replica.parts if part.node == node]
    return tuple(sorted({gpu for part in parts for gpu in part.gpus}))


def _no_problem(cores: Callable[[SiteNode, Errors], object], node: SiteNode) -> bool:
    problems = Errors()
    cores(node, problems)
    return not problems


def _places_per_node(site: Site, chosen: Sequence[SiteNode], size: int, errors: Errors) -> int:
    if site.device is Device.CPU:
        num_replicas = site.num_replicas or max(1, len(chosen) // size)
        return math.ceil(num_replicas * size / len(chosen))
    if site.slurm is None:
        return (site.num_replicas or 1) * size
    counts = {node.gpus for node in chosen}
    if len(counts) > 1 or 0 in counts:
        each = ", ".join(f"{node.name or 'any'}: {node.gpus}" for node in chosen)
        errors.add(
            f"site {site.name}: the nodes of a run need the same number of GPUs, at least one "
            f"({each})",
            hint="choose nodes with equal GPUs: --nodes NAME,NAME",
        )
    return max(counts)


def _num_replicas(
    site: Site, chosen: Sequence[SiteNode], size: int, num_places: int, errors: Errors
) -> int:
    """The site's number of replicas, or as many as fit."""
    what = "GPUs" if site.device is Device.CUDA else "places"
    total = len(chosen) * num_places
    fits = total // size
    problem, hint = "", ""
    if num_places > 0 and size > num_places and size % num_places != 0:
        problem = (
            f"a replica of {size} ranks ({_RANKS}) does not divide evenly over nodes of "
            f"{num_places} {what}"
        )
        hint = f"use a multiple of {num_places} ranks: --set engine.tensor_parallel_size=N"
    elif fits == 0:
        problem = (
            f"a replica needs {size} {what} ({_RANKS}), but the run has {total} on "
            f"{quantity(len(chosen), 'nodes')}"
        )
        num_nodes = math.ceil(size / max(1, num_places))
        hint = f"use more nodes: --nodes {num_nodes}"
        if num_nodes > len(site.nodes):
            hint = (
                f"use at most the {num_places * len(site.nodes)} {what} of site {site.name}: "
                "--set engine.tensor_parallel_size=N"
            )
    elif site.num_replicas is not None and site.num_replicas > fits:
        problem = (
            f"site.num_replicas is {site.num_replicas}, but {total} {what} are enough for {fits} "
            f"replicas of {size}"
        )
        hint = f"--set site.num_replicas={fits}"
    elif site.num_replicas is None and total % size != 0:
        problem = f"replicas of {size} ranks ({_RANKS}) leave {total % size} of {total} {what} idle"
        hint = f"to accept that: --set site.num_replicas={fits}"
    elif size < num_places and num_places % size != 0:
        problem = f"replicas of {size} ranks do not divide the {num_places} {what} of a node evenly"
        hint = f"use a divisor of {num_places}: --set engine.tensor_parallel_size=N"
    if problem:
        errors.add(problem, hint=hint)
    return site.num_replicas or fits


def _cpus(
    engine: Engine,
    site: Site,
    node: SiteNode,
    num_places: int,
    usable_cpus: Sequence[int],
    errors: Errors,
) -> tuple[int, ...]:
    """The cores that a node's engines share; empty for all of them, or for engines without any."""
    if engine.kind is EngineKind.REPLAY or site.device is Device.CUDA:
        return ()
    local = site.slurm is None
    cpus = node.cpus or site.cpu.cpus or (tuple(usable_cpus) if local else ())
    where = f"site {site.name}" if local else f"site {site.name}, node {node.name or 'any'}"
    key = "cpu.cpus" if local else "cpus"
    if local and (unusable := sorted(set(cpus) - set(usable_cpus))):
        errors.add(
            f"{where}: cpu.cpus lists cores that this process cannot use: {_list(unusable)}",
            hint=f"usable cores: {_list(usable_cpus)}",
        )
    if len(set(cpus)) < len(cpus):
        errors.add(f"{where}: duplicate core in {key}")
    if not cpus and num_places > 1:
        errors.add(
            f"{where}: {num_places} engines share the node, but its cores are not listed",
            hint="list them in the site's file: nodes: [{name: NODE, cpus: [0, 1]}]",
        )
    elif cpus and len(cpus) < num_places:
        errors.add(
            f"{where}: {num_places} replicas need at least one core each; "
            f"{quantity(len(cpus), 'cores')} available",
            hint=f"--set site.num_replicas={len(cpus)}",
        )
    return cpus


def _replicas(
    number: int, size: int, num_places: int, cpus: Sequence[tuple[int, ...]], cuda: bool
) -> tuple[Replica, ...]:
    return tuple(
        Replica(index=i, parts=_parts(i * size, size, num_places, cpus, cuda))
        for i in range(number)
    )


def _parts(
    first: int, size: int, num_places: int, cpus: Sequence[tuple[int, ...]], cuda: bool
) -> tuple[Part, ...]:
    """The parts of a replica on the places from ``first`` to ``first + size``, which are counted
    over all nodes."""
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
