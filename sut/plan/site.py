"""A site: where runs run. The second of the two inputs of a plan; :mod:`sut.plan.config` reads it.

Units stand in names: ``_s``, ``_min``, ``_gib``; counts are ``num_`` or ``max_``.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from sut.plan.benchmark import Scenario
from sut.values import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Struct


class Device(enum.StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class Timeouts(Struct, frozen=True, kw_only=True):
    """Deadlines. Every wait in a run has one."""

    join_s: PositiveFloat = 300.0  # every node of a run must have found the others
    ready_s: PositiveFloat = 600.0  # an engine must be ready to serve
    warmup_s: PositiveFloat = 120.0
    sample_s: PositiveFloat = 300.0  # from admission to a replica to its last token
    stall_s: PositiveFloat = 60.0  # a replica with work in flight must say something


class Container(Struct, frozen=True, kw_only=True):
    """The Apptainer image a run is packaged in."""

    image: str  # the SIF, on the shared file system
    binds: tuple[str, ...] = ()  # host folders and files, at the same place inside
    node_cache: str = ""  # folder on each node that the image is copied into first; empty: none


class CpuDevice(Struct, frozen=True, kw_only=True):
    kv_cache_gib: PositiveInt = 2  # per replica; vLLM takes whole GiB
    cpus: tuple[int, ...] = ()  # empty: every core this process may use


class SiteNode(Struct, frozen=True, kw_only=True):
    """One node of a cluster, and what of it runs may use."""

    name: str
    gpus: NonNegativeInt = 0
    gpu_memory_gib: NonNegativeFloat = 0  # of each GPU; 0: not known, so not checked
    cpus: tuple[NonNegativeInt, ...] = ()  # CPU device: cores for the engines; empty: all
    memory_gib: NonNegativeFloat = 0  # CPU device; 0: not known, so not checked


class SiteSlurm(Struct, frozen=True, kw_only=True):
    """How the cluster's Slurm is asked, by sbatch's words. Empty or 0: not asked for."""

    cluster: str = ""  # its ClusterName; empty: the cluster is known by its nodes
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""  # a node's GPUs without their number, e.g. gpu:a30
    cpus_per_task: NonNegativeInt = 0  # a task is a node
    memory_gib: NonNegativeInt = 0  # of each node; 0: all it has
    exclusive: bool = False
    time_min: NonNegativeInt = 0  # wall limit; 0: predicted from the run
    max_time_min: PositiveInt = 24 * 60  # the longest that may be asked for
    load_min: PositiveInt = 10  # to load a model and warm up, for that prediction
    signal_delay_s: PositiveInt = 120
    max_requeues: NonNegativeInt = 2
    sbatch: dict[str, str] = {}  # further options, e.g. {reservation: mlperf}


class SystemDescription(Struct, frozen=True, kw_only=True):
    """What a site says of its system, by MLCommons' names. Those that runs measure are only for
    where they can't: a machine that does not tell how many cores it has."""

    status: Literal["", "available", "preview", "rdi"] = ""
    system_name: str = ""
    system_type_detail: str = ""
    host_processor_model_name: str = ""
    host_processors_per_node: str = ""
    host_processor_core_count: str = ""  # of one processor
    host_processor_frequency: str = ""
    host_processor_caches: str = ""
    host_processor_interconnect: str = ""
    host_memory_capacity: str = ""
    host_memory_configuration: str = ""
    host_storage_type: str = ""
    host_storage_capacity: str = ""
    host_networking: str = ""
    host_networking_topology: str = ""
    host_network_card_count: str = ""
    accelerator_model_name: str = ""
    accelerator_memory_capacity: str = ""
    accelerator_memory_configuration: str = ""
    accelerator_frequency: str = ""
    accelerator_host_interconnect: str = ""
    accelerator_interconnect: str = ""
    accelerator_interconnect_topology: str = ""
    accelerator_on_chip_memories: str = msgspec.field(
        name="accelerator_on-chip_memories", default=""
    )
    operating_system: str = ""
    cooling: str = ""
    hw_notes: str = ""
    sw_notes: str = ""


class Site(Struct, frozen=True, kw_only=True):
    """Where it runs. Relative paths are taken from the folder the command is typed in.

    Without ``slurm`` it is the machine the command is typed on, and ``nodes`` is empty.
    """

    name: str
    description: str = ""
    device: Device = Device.CPU
    host: str = "127.0.0.1"  # address the dispatcher listens on for its engines
    run_root: str = "runs"
    num_replicas: PositiveInt | None = None  # None: one on this machine, or as many as fit
    target_qps: dict[str, dict[Scenario, PositiveFloat]] = {}  # what one replica here keeps up
    # with, by benchmark; a run's load is that times its replicas. Else the benchmark's own
    nodes: tuple[SiteNode, ...] = ()
    interface: str = ""  # network interface the nodes reach each other on, e.g. eth0
    slurm: SiteSlurm | None = None
    container: Container | None = None
    cache: str = ""  # writable folder for models and tokenized data; empty: the user's cache
    models: dict[str, str] = {}  # model name -> folder
    datasets: dict[str, str] = {}  # data set name -> file
    cpu: CpuDevice = CpuDevice()
    timeouts: Timeouts = Timeouts()
    env: dict[str, str] = {}  # added to the engines' environment
    system: SystemDescription = SystemDescription()  # for a submission: what runs can't measure
