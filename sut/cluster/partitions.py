"""What Slurm knows about its partitions and nodes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sut.cluster import slurm
from sut.plan.hostlist import HostlistError, compact, expand
from sut.plan.plan import Plan
from sut.plan.slurm_options import Slurm
from sut.values import Struct

# Words of a node's state, e.g. IDLE+DRAIN, in which it starts no job.
_UNAVAILABLE = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "MAINT"}


class Partition(Struct, frozen=True, kw_only=True):
    """A partition, by Slurm's names. None: no limit; an empty collection: all are allowed."""

    name: str
    default: bool = False
    state: str = "UP"
    nodes: tuple[str, ...] = ()
    max_time_min: int | None = None
    max_nodes: int | None = None
    allow_accounts: frozenset[str] = frozenset()
    deny_accounts: frozenset[str] = frozenset()
    allow_qos: frozenset[str] = frozenset()


class Machine(Struct, frozen=True, kw_only=True):
    """A node's resources as Slurm knows them."""

    name: str
    cpus: int = 0
    memory_mib: int = 0
    gres: str = ""  # e.g. gpu:a30:2(S:0-1)
    state: str = ""
    features: frozenset[str] = frozenset()

    @property
    def available(self) -> bool:
        """Whether it starts jobs at present."""
        return _UNAVAILABLE.isdisjoint(self.state.rstrip("*").split("+"))


def known(cluster: str = "") -> list[Partition]:
    """Every partition, of another cluster than this machine's where it is named; empty if Slurm
    does not answer."""
    return [_partition(fields) for fields in slurm.show("partition", cluster=cluster)]


def chosen(asked: Slurm, among: Sequence[Partition]) -> Partition | None:
    """The partition of a job. Of several, Slurm takes the first that can start it: this is the one
    with the longest time limit. None if there is none."""
    names = names_of(asked)
    fitting = [each for each in among if each.name in names or (not names and each.default)]
    return max(fitting, key=lambda each: each.max_time_min or 10**9, default=None)


def names_of(asked: Slurm) -> list[str]:
    """The partitions that a site names; empty for the default one."""
    return asked.partition.split(",") if asked.partition else []


def machines(plan: Plan, partition: Partition) -> list[Machine]:
    """The nodes that a job of ``plan`` may get; empty if Slurm does not answer."""
    named = [node.name for node in plan.candidates or plan.nodes if node.name in partition.nodes]
    cluster = plan.slurm.clusters if plan.slurm else ""
    shown = slurm.show("node", compact(named), cluster=cluster) if named else []
    return [_machine(fields) for fields in shown]


def reservations(cluster: str = "") -> dict[str, tuple[str, ...]]:
    """The nodes of each reservation that this user may see; empty if Slurm does not answer."""
    shown = slurm.show("reservation", cluster=cluster)
    return {each["ReservationName"]: tuple(_expanded(each.get("Nodes", ""))) for each in shown}


def every_machine() -> dict[str, Machine]:
    """Every node of the cluster by its name; empty if Slurm does not answer."""
    return {found.name: found for found in map(_machine, slurm.show("node"))}


def resources(gres: str) -> list[tuple[list[str], int]]:
    """Generic resources, ``gpu:a30:1(S:0),tmp:9``: the words before each number, and the number."""
    found = []
    for each in re.sub(r"\([^)]*\)", "", gres).split(","):
        *kind, last = each.split(":")
        number = slurm.number(last)
        found.append(([*kind, last], 1) if number is None else (kind, number))
    return found


def gpus_of(gres: str) -> tuple[tuple[str, int], ...]:
    """The GPUs in generic resources: their types, which may be empty, and their numbers."""
    return tuple((":".join(kind[1:]), n) for kind, n in resources(gres) if kind[:1] == ["gpu"])


def _partition(fields: dict[str, str]) -> Partition:
    def names(key: str) -> frozenset[str]:
        value = fields.get(key, "")
        return frozenset() if value in ("", "ALL") else frozenset(value.split(","))

    return Partition(
        name=fields.get("PartitionName", ""),
        default=fields.get("Default") == "YES",
        state=fields.get("State", "UP"),
        nodes=tuple(_expanded(fields.get("Nodes", ""))),
        max_time_min=slurm.minutes(fields.get("MaxTime", "")),
        max_nodes=slurm.number(fields.get("MaxNodes", "")),
        allow_accounts=names("AllowAccounts"),
        deny_accounts=names("DenyAccounts"),
        allow_qos=names("AllowQos"),
    )


def _machine(fields: dict[str, str]) -> Machine:
    return Machine(
        name=fields.get("NodeName", ""),
        cpus=slurm.number(fields.get("CPUTot", "")) or 0,
        memory_mib=slurm.number(fields.get("RealMemory", "")) or 0,
        gres=fields.get("Gres", ""),
        state=fields.get("State", ""),
        features=frozenset(filter(None, fields.get("AvailableFeatures", "").split(","))),
    )


def _expanded(text: str) -> list[str]:
    try:
        return expand(text)
    except HostlistError:
        return []
