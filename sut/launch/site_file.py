"""The file of a new site: what was found, with comments for the rest."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import yaml

from sut.errors import InputError, quoted
from sut.launch.survey import Found, Nodes
from sut.plan import config
from sut.plan.site import APPTAINER, Device, Site
from sut.units import quantity

CHECK = "(?)"  # marks a line that the user must check
MAX_TIME_MIN = 24 * 60  # where Slurm has no limit


def text(found: Found, site: str) -> str:
    """The file; ``site`` is what to give to --site."""
    cuda, nodes = found.device is Device.CUDA, found.nodes
    body = f"""\
name: {_yaml(found.name)}
description: {_yaml(_description(found))}
device: {found.device} # or {"cpu" if cuda else "cuda"}
{_engines(found) if nodes is None else _nodes(found, nodes)}

{_HERE if nodes is None else _shared(found)}
{_mapping("models", found.models, "folders", _MODEL)}
{_mapping("datasets", {}, "files", _DATA)}

{_LOAD}
{_slurm(found, nodes) if nodes else ""}{_TIMEOUTS if cuda else ""}\
env: {{}} # for the engines, e.g. {{NCCL_IB_DISABLE: "1"}} without RDMA
"""
    check = f" Check the lines marked {CHECK}, then:" if CHECK in body else ""
    return f"""\
# Written by python -m sut.init.{check}
#   python -m sut.doctor --site {quoted(site)}
# All keys: python -m sut.list keys site
{body}"""


def of_the_same(found: Found, folder: Path) -> list[Path]:
    """The site files in ``folder`` of the machine or of the cluster and partition that was found:
    of a machine by its name in their description."""
    same = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            site = config.read_as(path, Site)
        except InputError:  # not a site, or one with errors
            continue
        if found.nodes is None:
            here = site.slurm is None and site.description.startswith(_this_machine())
        else:
            named = site.slurm and (site.slurm.cluster, site.slurm.partition)
            here = named == (found.cluster, found.nodes.partition.name)
        if here:
            same.append(path)
    return same


def _this_machine() -> str:
    return f"This machine, {platform.node()}: "


def summary(found: Found) -> str:
    """What was found, in a line."""
    if found.nodes is None:
        return _description(found)
    gpus = f", {found.nodes.gpus} {found.nodes.gres} each" if found.nodes.gpus else ""
    return f"Slurm reports {_description(found)}{gpus}"


_HERE = "run_root: runs # a relative path starts at the current folder"
_MODEL = "Llama-3.1-8B-Instruct: /path/to/Llama-3.1-8B-Instruct"
_DATA = "cnn_eval.json: /path/to/cnn_eval.json"
_LOAD = """\
# Load of one replica, in queries/s, by benchmark and scenario. A run's load is this
# times its replicas. Without it, the benchmark's own load is offered.
target_qps: {}
#  llama3.1-8b: {server: 2, offline: 4}"""
_TIMEOUTS = """\
timeouts:
  ready_s: 1200 # until an engine is ready: weights, compilation, CUDA graphs
  warmup_s: 300
"""


def _description(found: Found) -> str:
    if found.nodes is None:
        gpus = f", {quantity(found.num_gpus, 'GPUs')}" if found.num_gpus else ""
        return f"{_this_machine()}{quantity(os.cpu_count(), 'cores')}{gpus}"
    names = quantity(len(found.nodes.names), "nodes")
    where = f"partition {found.nodes.partition.name} of {found.cluster or 'a Slurm cluster'}"
    return f"{names} of {where}"


def _engines(found: Found) -> str:
    if found.device is Device.CUDA:
        return f"num_replicas: {max(1, found.num_gpus)} # engines, one on each GPU"
    return "num_replicas: 1 # engines that share the cores"


def _nodes(found: Found, nodes: Nodes) -> str:
    cuda = found.device is Device.CUDA
    gpus = f", gpus: {nodes.gpus}, gpu_memory_gib: 0" if cuda else ""
    lines = ["", "nodes: # for runs; remove those that are not for benchmarks"]
    lines += [f"  - {{name: {_yaml(name)}{gpus}}}" for name in nodes.names]
    if cuda:
        lines.append(
            f"# gpu_memory_gib: of one GPU; Slurm does not know it {CHECK}. 0: unknown, and "
            "whether a model fits is not checked"
        )
    if nodes.others:
        others = ", ".join(nodes.others)
        lines.append(f"# Left out, because all nodes of a run must be alike: {others}")
    lines.append(
        f"interface: {_yaml(found.interface or 'eth0')} # network interface between the nodes "
        f"{CHECK}; list them with: ip -brief address"
    )
    return "\n".join(lines)


def _shared(found: Found) -> str:
    image = found.image or f"~/images/mlperf-sut-{found.device}.sif"
    where = "" if found.image else f" # {CHECK} not there yet; to build it: docs/images.md"
    other = found.container_command != APPTAINER
    command = f"\n  command: {found.container_command}" if other else ""
    return f"""\
# Paths on the file system that login and compute nodes share.
run_root: ~/mlperf-runs # {CHECK}
cache: ~/.cache/mlperf-sut # models, tokenized data, compiled kernels
container:
  image: {_yaml(image)}{where}{command}
  node_cache: "" # folder on each node's local disk for a copy of the image"""


def _mapping(key: str, values: Mapping[str, str], what: str, example: str) -> str:
    if not values:
        return f"{key}: {{}} # {what}, by name\n#  {example}"
    lines = [f"  {_yaml(name)}: {_yaml(path)}" for name, path in values.items()]
    return "\n".join([f"{key}: # {what}, by name", *lines])


def _slurm(found: Found, nodes: Nodes) -> str:
    limit, accounts = nodes.partition.max_time_min, ", ".join(found.accounts)
    yours = f"empty: your default one; yours: {accounts}" if accounts else "empty: left out"
    others = ", ".join(name for name in nodes.partitions if name != nodes.partition.name)
    also = f" # also: {others}" if others else ""
    uses_gpus = nodes.gres and found.device is Device.CUDA
    comment = "the number is added; null where the cluster refuses --gres"
    gres = f"  gres: {nodes.gres} # {comment}\n" if uses_gpus else ""
    features = ", ".join(nodes.features)
    constraint = f'  constraint: "" # features; these nodes have {features}\n' if features else ""
    why = "the partition's limit"
    if not limit:
        why = "the longest wall limit of a run; the partition has none"
    return f"""
slurm: # by sbatch's names
  cluster: {_yaml(found.cluster)}
  partition: {_yaml(nodes.partition.name)}{also}
  account: "" # {yours}
  qos: "" # empty: the account's default
{constraint}{gres}\
  memory_gib: 0 # per node; 0: all of it; null where the cluster refuses --mem
  exclusive: false # true: no other job on the nodes
  max_time_min: {limit or MAX_TIME_MIN} # {why}
  load_min: 15 # predicted time to load the model and warm up
  sbatch: {{}} # any other options, e.g. {{reservation: mlperf}}; docs/sites.md
  setup: [] # shell commands before the run, e.g. [module load apptainer]
"""


def _yaml(value: str) -> str:
    """A value as YAML, in one line, also within a flow mapping."""
    written: str = yaml.safe_dump([value], default_flow_style=True, width=2**16)
    return written.strip().removeprefix("[").removesuffix("]")
