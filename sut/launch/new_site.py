"""A new site file: what Slurm and this machine know, with comments for the rest."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from sut.cluster import partitions, slurm
from sut.cluster.partitions import Machine, Partition
from sut.errors import InputError
from sut.machine import nvml
from sut.plan.site import Device
from sut.units import quantity
from sut.values import Struct

CHECK = "(?)"  # marks a line that the user must check
MAX_TIME_MIN = 24 * 60  # where Slurm has no limit
IMAGES = ("~/images", "/opt/images", "/shared/images")


class Nodes(Struct, frozen=True, kw_only=True):
    """The nodes of a partition that are alike, and those that are not."""

    partition: Partition
    names: tuple[str, ...]
    gres: str  # without the count
    gpus: int  # of a node
    others: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()  # of the cluster


class Found(Struct, frozen=True, kw_only=True):
    """What a site file is written from. ``nodes`` is None for a single machine."""

    name: str
    device: Device
    gpu_memory_gib: float = 0
    num_gpus: int = 0  # of this machine
    cluster: str = ""
    nodes: Nodes | None = None
    accounts: tuple[str, ...] = ()
    interface: str = ""
    image: str = ""
    models: tuple[tuple[str, str], ...] = ()  # name, folder


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
        memories = [memory.total for gpu in found.gpus if (memory := gpu.query("MemoryInfo"))]
    return Found(
        name=name or platform.node().partition(".")[0] or "mine",
        device=Device(device or (Device.CUDA if memories else Device.CPU)),
        num_gpus=len(memories),
        gpu_memory_gib=round(min(memories, default=0) / 2**30, 1),
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
    user = f"user={getpass.getuser()}"
    accounts = slurm.accounting("associations", "account", where=[user])
    return Found(
        name=name or cluster or "mine",
        device=chosen,
        cluster=cluster,
        nodes=nodes,
        accounts=tuple(dict.fromkeys(account for (account,) in accounts)),
        interface=_interface_to(nodes.names[0]),
        image=_image(chosen),
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
    return Nodes(
        partition=chosen,
        names=tuple(sorted(set(chosen.nodes) - set(others), key=_slurms_order)),
        gres=f"gpu:{kind}" if kind else "gpu" if count else "",
        gpus=count,
        others=tuple(f"{name} ({_gpus(gpus.get(name, ()))})" for name in others),
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
    return next((path for path in usual if Path(path).expanduser().is_file()), "")


def _models() -> tuple[tuple[str, str], ...]:
    folders = sorted(Path("~/models").expanduser().glob("*/config.json"))
    return tuple((config.parent.name, f"~/models/{config.parent.name}") for config in folders)


def text(found: Found, site: str) -> str:
    """The site file; ``site`` is what to give to --site."""
    nodes = found.nodes
    lines = [
        f"name: {_yaml(found.name)}",
        f"description: {_yaml(_description(found))}",
        f"device: {found.device} # {'or cpu' if found.device is Device.CUDA else 'or cuda'}",
    ]
    if nodes is not None:
        lines += _node_lines(found, nodes)
    elif found.device is Device.CUDA:
        lines += [f"num_replicas: {max(1, found.num_gpus)} # engines, one on each GPU"]
    else:
        lines += ["num_replicas: 1 # engines that share the cores"]
    lines += ["", *_path_lines(found)]
    lines += [
        "",
        "# Load of one replica, in queries/s, by benchmark and scenario. A run's load is this",
        "# times its replicas. Without it, the benchmark's own load is offered.",
        "target_qps: {}",
        "#  llama3.1-8b: {server: 2, offline: 4}",
    ]
    if nodes is not None:
        lines += ["", *_slurm_lines(found, nodes)]
    if found.device is Device.CUDA:
        lines += [
            "timeouts:",
            "  ready_s: 1200 # until an engine is ready: weights, compilation, CUDA graphs",
            "  warmup_s: 300",
        ]
    lines += ['env: {} # for the engines, e.g. {NCCL_IB_DISABLE: "1"} without RDMA']
    check = f" Check the lines marked {CHECK}, then:" * any(CHECK in line for line in lines)
    head = [
        f"# Written by python -m sut.init.{check}",
        f"#   python -m sut.doctor --site {site}",
        "# All keys: python -m sut.list keys site",
    ]
    return "\n".join([*head, *lines, ""])


def _description(found: Found) -> str:
    if found.nodes is None:
        gpus = f", {quantity(found.num_gpus, 'GPUs')}" if found.num_gpus else ""
        return f"This machine, {platform.node()}: {quantity(os.cpu_count(), 'cores')}{gpus}"
    names = quantity(len(found.nodes.names), "nodes")
    where = f"partition {found.nodes.partition.name} of {found.cluster or 'a Slurm cluster'}"
    return f"{names} of {where}"


def _node_lines(found: Found, nodes: Nodes) -> list[str]:
    lines = ["", "nodes: # for runs; remove those that are not for benchmarks"]
    for name in nodes.names:
        gpus = f", gpus: {nodes.gpus}, gpu_memory_gib: 0" * (found.device is Device.CUDA)
        lines.append(f"  - {{name: {_yaml(name)}{gpus}}}")
    if found.device is Device.CUDA:
        lines.append(
            f"# gpu_memory_gib: of one GPU; Slurm does not know it {CHECK}. 0: unknown, and "
            "whether a model fits is not checked"
        )
    if nodes.others:
        lines.append(
            f"# Left out, because all nodes of a run must be alike: {', '.join(nodes.others)}"
        )
    interface = found.interface or "eth0"
    lines.append(
        f"interface: {_yaml(interface)} # network interface between the nodes {CHECK}; list them "
        "with: ip -brief address"
    )
    return lines


def _path_lines(found: Found) -> list[str]:
    lines = []
    if found.nodes is not None:
        image = found.image or f"~/images/mlperf-sut-{found.device}.sif"
        where = "" if found.image else f" # {CHECK} not there yet; to build it: docs/images.md"
        lines += [
            "# Paths on the file system that login and compute nodes share.",
            f"run_root: ~/mlperf-runs # {CHECK}",
            "cache: ~/.cache/mlperf-sut # models, tokenized data, compiled kernels",
            "container:",
            f"  image: {_yaml(image)}{where}",
            '  node_cache: "" # folder on each node\'s local disk for a copy of the image',
        ]
    else:
        lines += ["run_root: runs # a relative path starts at the current folder"]
    lines += ["models: # folders, by name" if found.models else "models: {} # folders, by name"]
    lines += [f"  {_yaml(name)}: {_yaml(path)}" for name, path in found.models]
    if not found.models:
        lines += ["#  Llama-3.1-8B-Instruct: /path/to/Llama-3.1-8B-Instruct"]
    return [
        *lines,
        "datasets: {} # files, by name",
        "#  cnn_eval.json: /path/to/cnn_eval.json",
    ]


def _slurm_lines(found: Found, nodes: Nodes) -> list[str]:
    limit = nodes.partition.max_time_min
    accounts = ", ".join(found.accounts)
    yours = f"empty: your default one; yours: {accounts}" if accounts else "empty: left out"
    others = [name for name in nodes.partitions if name != nodes.partition.name]
    also = f" # also: {', '.join(others)}" if others else ""
    uses_gpus = nodes.gres and found.device is Device.CUDA
    gres = [f"  gres: {nodes.gres} # the count is added"] if uses_gpus else []
    return [
        "slurm: # by sbatch's names",
        f"  cluster: {_yaml(found.cluster)}",
        f"  partition: {_yaml(nodes.partition.name)}{also}",
        f'  account: "" # {yours}',
        '  qos: ""',
        *gres,
        "  memory_gib: 0 # per node; 0: all of it",
        "  exclusive: false # true: no other job on the nodes",
        "  max_time_min: "
        + (
            f"{limit} # the partition's limit"
            if limit
            else f"{MAX_TIME_MIN} # the longest wall limit of a run; the partition has none"
        ),
        "  load_min: 15 # predicted time to load the model and warm up",
    ]


def _yaml(value: str | float) -> str:
    """A value as YAML, in one line, also within a flow mapping."""
    written: str = yaml.safe_dump([value], default_flow_style=True, width=2**16)
    return written.strip().removeprefix("[").removesuffix("]")


def summary(found: Found) -> str:
    """What was found, in a line."""
    if found.nodes is None:
        return _description(found)
    gpus = f", {found.nodes.gpus} {found.nodes.gres} each" if found.nodes.gpus else ""
    return f"Slurm reports {_description(found)}{gpus}"
