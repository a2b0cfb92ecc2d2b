"""What Slurm and this machine know of a site that has no file yet."""

from __future__ import annotations

import json
import platform
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence

from sut.cluster import partitions, slurm
from sut.cluster.partitions import Machine, Partition
from sut.errors import InputError
from sut.home import expanded, user_name
from sut.machine import nvml
from sut.plan.site import APPTAINER, Device
from sut.values import Struct

IMAGES = ("~/images", "/opt/images", "/shared/images")


class Nodes(Struct, frozen=True, kw_only=True):
    """The nodes of a partition that are alike, and those that are not."""

    partition: Partition
    names: tuple[str, ...]
    gres: str  # without the count
    gpus: int  # of a node
    others: tuple[str, ...] = ()
    features: tuple[str, ...] = ()  # that all of ``names`` have
    partitions: tuple[str, ...] = ()  # of the cluster


class Found(Struct, frozen=True, kw_only=True):
    """What a site file is written from. ``nodes`` is None for a single machine."""

    name: str
    device: Device
    num_gpus: int = 0  # of this machine
    cluster: str = ""
    nodes: Nodes | None = None
    accounts: tuple[str, ...] = ()
    interface: str = ""
    image: str = ""
    container_command: str = APPTAINER
    models: dict[str, str] = {}  # folders by name


def ask(name: str, partition: str, device: str, here_only: bool) -> Found:
    """What Slurm and this machine report. An empty ``name``, ``partition`` or ``device`` is chosen.
    Raises InputError."""
    if here_only or not slurm.is_here():
        if partition:
            raise InputError(
                f"--partition {partition} needs a Slurm cluster, and this is a single machine",
                hint="leave out --partition",
            )
        return _machine(name, device)
    return _cluster(name, partition, device)


def _machine(name: str, device: str) -> Found:
    with nvml.opened() as found:
        num_gpus = len(found.gpus)
    return Found(
        name=name or platform.node().partition(".")[0] or "mine",
        device=Device(device or (Device.CUDA if num_gpus else Device.CPU)),
        num_gpus=num_gpus,
        models=_models(),
    )


def _cluster(name: str, partition: str, device: str) -> Found:
    every, machines = partitions.known(), partitions.every_machine()
    if not machines:
        raise InputError(
            "Slurm lists no nodes (scontrol show node)",
            hint="check that slurmctld answers: scontrol ping; or, for this machine alone: "
            "python -m sut.init --local",
        )
    cluster, nodes = slurm.cluster_name(), alike(every, machines, partition)
    chosen = Device(device or (Device.CUDA if nodes.gpus else Device.CPU))
    user = f"user={user_name()}"
    accounts = slurm.accounting("associations", "account", where=[user])
    return Found(
        name=name or cluster or "mine",
        device=chosen,
        cluster=cluster,
        nodes=nodes,
        accounts=tuple(dict.fromkeys(account for (account,) in accounts)),
        interface=_interface_to(nodes.names[0]),
        image=_image(chosen),
        container_command=_container_command(),
        models=_models(),
    )


def alike(
    every: Sequence[Partition], machines: Mapping[str, Machine], partition: str = ""
) -> Nodes:
    """The nodes of a partition with the most frequent GPUs: of the given partition, or else of the
    one with GPUs, of several the default one or else that with most. Raises InputError for an
    unknown one."""
    by_name = {each.name: each for each in every if each.nodes}
    if partition and partition not in by_name:
        raise InputError(
            f"--partition {partition}: the cluster has no such partition with nodes",
            hint=f"choose from: {', '.join(by_name)}",
        )
    gpus = {name: partitions.gpus_of(machine.gres) for name, machine in machines.items()}

    def rank(each: Partition) -> tuple[bool, bool, int]:
        total = sum(count for name in each.nodes for _, count in gpus.get(name, ()))
        return total > 0, each.default, total

    chosen = by_name[partition] if partition else max(by_name.values(), key=rank)
    # A partition with some GPU nodes is for them.
    kinds = Counter(gpus.get(name, ()) for name in chosen.nodes)
    most = max(kinds, key=lambda kind: (bool(kind), kinds[kind]))
    (kind, count), *_ = most or (("", 0),)
    others = [name for name in chosen.nodes if gpus.get(name, ()) != most]
    names = sorted(set(chosen.nodes) - set(others), key=_slurms_order)
    features = [machines[name].features for name in names if name in machines]
    return Nodes(
        partition=chosen,
        names=tuple(names),
        gres=f"gpu:{kind}" if kind else "gpu" if count else "",
        gpus=count,
        others=tuple(f"{name} ({_gpus(gpus.get(name, ()))})" for name in others),
        features=tuple(sorted(frozenset.intersection(*features))) if features else (),
        partitions=tuple(by_name),
    )


def _gpus(gpus: Sequence[tuple[str, int]]) -> str:
    return " and ".join(f"{count} {kind or 'gpu'}" for kind, count in gpus) or "no GPU"


def _slurms_order(name: str) -> tuple[str | int, ...]:
    """Slurm numbers a job's nodes by name, numbers in it by value."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _interface_to(node: str) -> str:
    """This machine's interface on the way to a node; empty if unknown."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((node, 9))  # sends nothing
            own = way.getsockname()[0]
        shown = subprocess.run(
            ["ip", "-json", "-4", "address"], capture_output=True, text=True, timeout=10, check=True
        )
        links = json.loads(shown.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    for link in links:
        if any(address.get("local") == own for address in link.get("addr_info", ())):
            return str(link["ifname"])
    return ""


def _image(device: Device) -> str:
    """The image of this device in a usual folder; empty if there is none."""
    name = f"mlperf-sut-{device}.sif"
    usual = (f"{folder}/{name}" for folder in IMAGES)
    return next((path for path in usual if expanded(path).is_file()), "")


def _container_command() -> str:
    """``singularity`` where this machine has that alone."""
    has_only = shutil.which("singularity") and not shutil.which(APPTAINER)
    return "singularity" if has_only else APPTAINER


def _models() -> dict[str, str]:
    found = sorted(expanded("~/models").glob("*/config.json"))
    return {config.parent.name: f"~/models/{config.parent.name}" for config in found}
