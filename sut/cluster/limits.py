"""Why Slurm would refuse the job of a plan, or never start it.

What Slurm does not answer is not checked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence

from sut.cluster import slurm
from sut.cluster.partitions import Machine, Partition, chosen, names_of, resources
from sut.errors import Errors, nearest
from sut.home import user_name
from sut.plan.hostlist import compact
from sut.plan.plan import Plan
from sut.plan.slurm_options import ANY_GPU, Slurm
from sut.units import quantity

MIB_PER_GIB = 1024


def check_partition(plan: Plan, known: Sequence[Partition], errors: Errors) -> None:
    """Add to ``errors`` what keeps the job of a plan out of its partition."""
    asked = plan.slurm
    assert asked is not None
    names = [each.name for each in known]
    for name in names_of(asked):
        if name not in names:
            errors.add(
                f"Slurm has no partition '{name}'{nearest(name, names)}",
                hint=_choose_from("partition", names),
            )
    found = chosen(asked, known)
    if found is None:
        if not names_of(asked):
            errors.add(
                "Slurm has no default partition, and the site names none",
                hint=_choose_from("partition", names),
            )
        return
    where = f"partition {found.name}"
    if found.state in ("DRAIN", "INACTIVE"):
        errors.add(f"{where} is {found.state}: it takes no jobs", hint="list them with: sinfo -s")
    _check_nodes(plan, found, errors)
    if found.max_time_min is not None and asked.time_min > found.max_time_min:
        errors.add(
            f"the wall limit of {asked.time_min:,} minutes exceeds the {found.max_time_min:,} of "
            f"{where}",
            hint="choose a smaller --preset, raise target_qps, or choose another partition: "
            "--set site.slurm.partition=NAME",
        )
    if asked.account and not _allowed(asked.account, found.allow_accounts, found.deny_accounts):
        errors.add(
            f"{where} does not allow account {asked.account}",
            hint=_choose_from("account", found.allow_accounts),
        )
    if asked.qos and not _allowed(asked.qos, found.allow_qos):
        errors.add(
            f"{where} does not allow qos {asked.qos}", hint=_choose_from("qos", found.allow_qos)
        )


def _check_nodes(plan: Plan, partition: Partition, errors: Errors) -> None:
    if partition.max_nodes is not None and len(plan.nodes) > partition.max_nodes:
        errors.add(
            f"the run needs {quantity(len(plan.nodes), 'nodes')}, but partition {partition.name} "
            f"allows {partition.max_nodes} for a job",
            hint=f"use at most {partition.max_nodes}: --nodes {partition.max_nodes}",
        )
    named = [node.name for node in plan.candidates or plan.nodes if node.name]
    missing = [name for name in named if name not in partition.nodes]
    if len(named) - len(missing) < len(plan.nodes) and missing:
        errors.add(
            f"not in partition {partition.name}: node {compact(missing)}",
            hint=f"its nodes are {compact(partition.nodes) or 'none'}; correct nodes: or "
            f"slurm.partition: in the file of site {plan.site}",
        )


def check_machines(plan: Plan, known: Sequence[Machine], errors: Errors) -> None:
    """Add to ``errors`` what the job asks for and these nodes do not have. A job whose nodes Slurm
    chooses needs as many fitting nodes as it has."""
    asked = plan.slurm
    assert asked is not None
    # A feature that no node lists may be one that the cluster's own plugin handles.
    listed = frozenset[str]().union(*(each.features for each in known))
    features = [name for name in _features(asked) if name in listed]
    lacking = [found for each in known if (found := _lacks(asked, features, each))]
    needed = len(plan.nodes) if plan.candidates else len(known)
    if len(known) - len(lacking) < needed:
        for problem in itertools.chain.from_iterable(lacking):
            errors.add(problem, hint=f"correct slurm: in the file of site {plan.site}")
    _check_sum_of_gpus(plan, known, errors)


def _check_sum_of_gpus(plan: Plan, known: Sequence[Machine], errors: Errors) -> None:
    """A job that asks for the GPUs of unlike nodes by their sum must get all of each node: Slurm
    may divide fewer in any way."""
    assert plan.slurm is not None
    number_of = {node.name: node.gpus for node in plan.nodes}
    if "gpus" not in plan.slurm.sbatch or len(set(number_of.values())) == 1:
        return
    kind = [ANY_GPU, *str(plan.slurm.sbatch["gpus"]).split(":")[:-1]]
    for machine in known:
        number, has = number_of.get(machine.name), _num_gres(machine.gres, kind)
        if number is not None and number != has:
            errors.add(
                f"node {machine.name} has gres {machine.gres or 'none'}; on nodes with different "
                f"numbers of GPUs a run uses all of them, and the site lists {number}",
                hint=f"correct gpus: of the nodes in the file of site {plan.site}",
            )


def _lacks(asked: Slurm, features: Sequence[str], machine: Machine) -> list[str]:
    """Why a node cannot run the job, which needs these features; empty if it can."""
    name, found = f"node {machine.name}", []
    gpus = _gpus_per_node(asked)
    if any(_num_gres(machine.gres, kind) < number for kind, number in gpus):
        wanted = ",".join(f"{':'.join(kind)}:{number}" for kind, number in gpus)
        found.append(f"{name} has gres {machine.gres or 'none'}; the run asks for {wanted}")
    if lacking := [each for each in features if each not in machine.features]:
        has = ", ".join(sorted(machine.features)) or "none"
        found.append(f"{name} has no feature {', '.join(lacking)} (slurm.constraint); it has {has}")
    if asked.memory_gib * MIB_PER_GIB > machine.memory_mib:
        has_gib = machine.memory_mib // MIB_PER_GIB
        found.append(f"{name} has {has_gib} GiB of memory; slurm.memory_gib is {asked.memory_gib}")
    if asked.cpus_per_task > machine.cpus:
        found.append(
            f"{name} has {machine.cpus} cores; slurm.cpus_per_task is {asked.cpus_per_task}"
        )
    return found


def check_reservation(
    plan: Plan, known: Mapping[str, Sequence[str]], errors: Errors
) -> Sequence[str]:
    """Add to ``errors`` a reservation that Slurm does not list, or that lacks nodes of the run.
    Returns the reservation's nodes; empty if Slurm lists no reservation."""
    assert plan.slurm is not None
    names = str(plan.slurm.sbatch.get("reservation", "")).split(",")
    if not known:
        return ()
    for name in names:
        if name not in known:
            errors.add(
                f"Slurm lists no reservation '{name}' for you{nearest(name, known)}",
                hint=_choose_from("reservation", known),
            )
    nodes = [node for name in names for node in known.get(name, ())]
    named = [node.name for node in plan.candidates or plan.nodes]
    missing = [name for name in named if name not in nodes]
    if nodes and len(named) - len(missing) < len(plan.nodes):
        errors.add(
            f"not in reservation {','.join(names)}: node {compact(missing)}",
            hint=f"its nodes are {compact(nodes)}: choose some with --nodes",
        )
    return nodes


def check_account(plan: Plan, errors: Errors) -> bool:
    """Add to ``errors`` an account or a quality of service that this user cannot use, and a wall
    limit that the latter does not allow. Returns whether accounting answered."""
    asked = plan.slurm
    assert asked is not None
    enforced = slurm.setting("AccountingStorageEnforce", asked.clusters).lower()
    user = user_name()
    rows = slurm.accounting("associations", "account", "qos", where=[f"user={user}"])
    if "associations" not in enforced or not rows:
        return False
    accounts = {row[0] for row in rows}
    if asked.account and asked.account not in accounts:
        errors.add(
            f"user {user} has no Slurm account '{asked.account}'{nearest(asked.account, accounts)}",
            hint=_choose_from("account", accounts),
        )
    usable = {qos for row in rows if asked.account in ("", row[0]) for qos in row[1].split(",")}
    if asked.qos and "qos" in enforced and usable and asked.qos not in usable:
        errors.add(
            f"user {user} has no Slurm qos '{asked.qos}'{nearest(asked.qos, usable)}",
            hint=_choose_from("qos", usable),
        )
    if asked.qos and "limits" in enforced:
        _check_max_wall(asked, errors)
    return True


def _check_max_wall(asked: Slurm, errors: Errors) -> None:
    for name, max_wall in slurm.accounting("qos", "name", "maxwall"):
        most = slurm.minutes(max_wall) if name == asked.qos else None
        if most is not None and asked.time_min > most:
            errors.add(
                f"the wall limit of {asked.time_min:,} minutes exceeds the {most:,} of qos {name}",
                hint="choose a smaller --preset, raise target_qps, or choose another qos: "
                "--set site.slurm.qos=NAME",
            )


def _gpus_per_node(asked: Slurm) -> list[tuple[list[str], int]]:
    """The GPUs that a job asks for on each node, by gres or gpus-per-node."""
    text = asked.gres or asked.sbatch.get("gres", "")
    if per_node := asked.sbatch.get("gpus-per-node", ""):
        text = f"gpu:{per_node}"
    return [each for each in resources(str(text)) if each[0][:1] == ["gpu"]]


def _features(asked: Slurm) -> list[str]:
    """The features that every node must have; empty for a constraint that is a choice of some."""
    names = asked.constraint.split("&") if asked.constraint else []
    return names if all(re.fullmatch(r"[\w.:-]+", name) for name in names) else []


def _num_gres(has: str, wanted: list[str]) -> int:
    """How many of ``wanted``, ``gpu`` or ``gpu:a30``, are in a node's ``gpu:a30:2(S:0-1)``."""
    return sum(number for kind, number in resources(has) if kind[: len(wanted)] == wanted)


def _allowed(name: str, allow: Collection[str], deny: Collection[str] = ()) -> bool:
    return name not in deny and (not allow or name in allow)


def _choose_from(key: str, names: Collection[str]) -> str:
    if not names:
        return f"choose another: --set site.slurm.{key}=NAME"
    return f"choose one of: {', '.join(sorted(names))} (--set site.slurm.{key}=NAME)"
