"""Placement: which nodes a run uses, and which cores and GPUs of them each replica gets. Pure.

A *place* of a node is what one rank of an engine runs on: a GPU, or on the CPU a share of the
node's cores. A replica needs tensor parallel size x pipeline parallel size places. It is on one
node if it fits there; otherwise it takes several whole nodes. Nodes may differ in their number of
GPUs if every replica is on one node.

Where Slurm chooses the nodes, the plan lists those it may choose from, and :func:`on_nodes` gives
the replicas their cores in the job.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

import msgspec

from sut.errors import Errors
from sut.plan.benchmark import Engine, EngineKind
from sut.plan.plan import Node, Part, Plan, Replica
from sut.plan.selection import select
from sut.plan.site import Device, Site, SiteNode
from sut.units import quantity
from sut.values import Struct

_RANKS = "tensor_parallel_size x pipeline_parallel_size"


class Change(Struct, frozen=True, kw_only=True):
    """Another division of the nodes; None: as it is."""

    tensor_parallel_size: int | None = None
    num_replicas: int | None = None
    nodes: int | None = None

    def options(self) -> str:
        """The options of sut.submit that make the change."""
        tp, replicas = self.tensor_parallel_size, self.num_replicas
        return " ".join(
            [f"--nodes {self.nodes}"] * (self.nodes is not None)
            + [f"--set engine.tensor_parallel_size={tp}"] * (tp is not None)
            + [f"--set site.num_replicas={replicas}"] * (replicas is not None)
        )


Advise = Callable[..., str]  # the hint for a division that fails, from the Changes to prefer


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
    advise: Advise = lambda *_: "",
) -> Placement:
    """The nodes of a run and the replicas on them; empty after adding to ``errors``.

    ``nodes`` is a number of nodes, a hostlist, ``all``, or empty for one. ``usable_cpus`` are this
    machine's, for a site without Slurm. Slurm may choose only nodes that the model ``fits`` on.
    ``advise`` makes the hints about sizes and numbers.
    """
    before = len(errors)
    pool, number = select(site, nodes, errors)
    if len(errors) > before:
        return Placement()
    size = engine.tensor_parallel_size * engine.pipeline_parallel_size
    places = _places(site, pool[:number], size, errors)
    num_replicas = _num_replicas(site, places, size, errors, advise)
    if len(errors) > before:
        return Placement()

    def cores(node: SiteNode, problems: Errors) -> tuple[int, ...]:
        return _cpus(engine, site, node, places[0], usable_cpus, problems, advise)

    able = [node for node in pool if fits(node) and _no_problem(cores, node)]
    pool = able if len(able) >= number else pool[:number]
    cpus = [cores(node, errors) for node in pool]
    if len(errors) > before:
        return Placement()
    cuda = site.device is Device.CUDA
    known = tuple(
        Node(name=node.name, cpus=cpus[i], gpus=node.gpus or (places[0] if cuda else 0))
        for i, node in enumerate(pool)
    )
    free = len(pool) > number  # among nodes with the same number of GPUs
    return Placement(
        nodes=(Node(gpus=known[0].gpus),) * number if free else known,
        candidates=known if free else (),
        replicas=_replicas(num_replicas, size, places, [()] * number if free else cpus, cuda),
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
    places = (sum(ranks),) * len(nodes)
    replicas = _replicas(len(plan.replicas), size, places, cpus, cuda)
    return msgspec.structs.replace(plan, nodes=nodes, candidates=(), replicas=replicas)


def gpus_of(plan: Plan, node: int) -> tuple[int, ...]:
    """The GPUs that a run uses on a node, as places among those that its job may use there."""
    parts = [part for replica in plan.replicas for part in replica.parts if part.node == node]
    return tuple(sorted({gpu for part in parts for gpu in part.gpus}))


def _no_problem(cores: Callable[[SiteNode, Errors], object], node: SiteNode) -> bool:
    problems = Errors()
    cores(node, problems)
    return not problems


def _places(site: Site, chosen: Sequence[SiteNode], size: int, errors: Errors) -> tuple[int, ...]:
    """The number of places of each node; on the CPU, of all nodes the same."""
    if site.device is Device.CPU:
        num_replicas = site.num_replicas or max(1, len(chosen) // size)
        return (math.ceil(num_replicas * size / len(chosen)),) * len(chosen)
    if site.slurm is None:
        return ((site.num_replicas or 1) * size,)
    places = tuple(node.gpus for node in chosen)
    each = ", ".join(f"{node.name or 'any'}: {node.gpus}" for node in chosen)
    if 0 in places:
        errors.add(
            f"site {site.name}: the nodes of a run need at least one GPU each ({each})",
            hint="choose nodes with GPUs: --nodes NAME,NAME",
        )
    elif len(set(places)) > 1 and min(places) < size:
        errors.add(
            f"site {site.name}: a replica of {size} ranks ({_RANKS}) does not fit on each node "
            f"({each}), and one on several nodes needs nodes with the same number of GPUs",
            hint="choose nodes with equal GPUs: --nodes NAME,NAME",
        )
    return places


def _num_replicas(
    site: Site, places: Sequence[int], size: int, errors: Errors, advise: Advise
) -> int:
    """The site's number of replicas, or as many as fit."""
    what = "GPUs" if site.device is Device.CUDA else "places"
    total = sum(places)
    fits = total // size
    common = math.gcd(*places)  # that of each node, where they are equal
    is_unlike = len(set(places)) > 1
    uneven = (
        f"replicas of {size} ranks do not divide the {_list(dict.fromkeys(places))} {what} of a "
        "node evenly"
    )
    problem, prefer = "", Change(num_replicas=fits)
    if is_unlike and common % size != 0:
        problem = uneven if min(places) >= size else ""  # else there is an error
    elif common > 0 and size > common and size % common != 0:
        problem = (
            f"a replica of {size} ranks ({_RANKS}) does not divide evenly over nodes of "
            f"{common} {what}"
        )
    elif fits == 0:
        problem = (
            f"a replica needs {size} {what} ({_RANKS}), but the run has {total} on "
            f"{quantity(len(places), 'nodes')}"
        )
        prefer = Change(nodes=math.ceil(size / max(1, common)))
    elif site.num_replicas is not None and site.num_replicas > fits:
        problem = (
            f"site.num_replicas is {site.num_replicas}, but the run's {total} {what} have "
            f"room for only {fits}, with {size} for each"
        )
    elif site.num_replicas is None and total % size != 0:
        problem = f"replicas of {size} ranks ({_RANKS}) leave {total % size} of {total} {what} idle"
    elif size < common and common % size != 0 and len(places) > 1:
        problem = uneven
    if problem:
        errors.add(problem, hint=advise(prefer))
    return site.num_replicas or fits


def _cpus(
    engine: Engine,
    site: Site,
    node: SiteNode,
    num_places: int,
    usable_cpus: Sequence[int],
    errors: Errors,
    advise: Advise,
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
            hint=advise(Change(num_replicas=len(cpus))),
        )
    return cpus


def _replicas(
    number: int,
    size: int,
    places: Sequence[int],
    cpus: Sequence[tuple[int, ...]],
    cuda: bool,
) -> tuple[Replica, ...]:
    """``places`` and ``cpus`` are by node."""
    slots = [(node, place) for node, count in enumerate(places) for place in range(count)]
    return tuple(
        Replica(index=i, parts=_parts(slots[i * size : (i + 1) * size], places, cpus, cuda))
        for i in range(number)
    )


def _parts(
    slots: Sequence[tuple[int, int]],
    places: Sequence[int],
    cpus: Sequence[tuple[int, ...]],
    cuda: bool,
) -> tuple[Part, ...]:
    """The parts of a replica on these places, each with its node."""
    parts = []
    for node, of_node in itertools.groupby(slots, key=itemgetter(0)):
        taken = [place for _, place in of_node]
        share = len(cpus[node]) // places[node]
        parts.append(
            Part(
                node=node,
                cpus=cpus[node][taken[0] * share : (taken[-1] + 1) * share],
                gpus=tuple(taken) if cuda else (),
            )
        )
    return tuple(parts)


def _list(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
