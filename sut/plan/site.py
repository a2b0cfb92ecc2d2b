"""A site: where a run runs. The other input of a plan; read by :mod:`sut.plan.config`."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from sut.plan.benchmark import Scenario
from sut.values import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Struct

APPTAINER = "apptainer"


class Device(enum.StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class Timeouts(Struct, frozen=True, kw_only=True):
    """The deadlines of a run. Every wait has one."""

    join_s: PositiveFloat = 300.0  # until all nodes have connected
    ready_s: PositiveFloat = 600.0  # until an engine is ready
    warmup_s: PositiveFloat = 120.0  # for the first samples: the engine may compile
    sample_s: PositiveFloat = 300.0  # of a sample, from admission to a replica to its last token
    stall_s: PositiveFloat = 60.0  # without output from a warm replica that has work in flight


class Container(Struct, frozen=True, kw_only=True):
    """The Apptainer image that a run uses."""

    image: str  # the SIF, on the shared file system
    binds: tuple[str, ...] = ()  # host folders and files, bound read-only at the same path
    node_cache: str = ""  # folder on each node for a copy of the image; empty: no copy
    verify: bool = False  # run only an image that is signed with a key of the node's keyring
    command: str = APPTAINER  # program that runs it: a name on the nodes' PATH or a path; or
    # singularity


class CpuDevice(Struct, frozen=True, kw_only=True):
    kv_cache_gib: PositiveInt = 2  # per replica; vLLM takes whole GiB
    cpus: tuple[int, ...] = ()  # empty: all that this process may use


class SiteNode(Struct, frozen=True, kw_only=True):
    """One node of a cluster, or several equal ones, and the resources of each for runs."""

    name: str  # or a hostlist: gpu[01-16]
    gpus: NonNegativeInt = 0
    gpu_memory_gib: NonNegativeFloat = 0  # per GPU; 0: unknown and not checked
    cpus: tuple[NonNegativeInt, ...] = ()  # CPU device: cores for engines; empty: all
    memory_gib: NonNegativeFloat = 0  # CPU device; not checked
    price_per_node_hour: PositiveFloat | None = None  # of each; null: the site's


class SiteSlurm(Struct, frozen=True, kw_only=True):
    """The sbatch options of a site, by sbatch's names. An empty value or null: left out."""

    cluster: str | None = ""  # ClusterName; empty: the cluster is identified by its nodes
    clusters: str | None = ""  # another cluster that sbatch on this machine submits to
    partition: str | None = ""  # empty: the default one
    account: str | None = ""  # the project that is charged; empty: your default one
    qos: str | None = ""  # quality of service: priority and limits; empty: the account's default
    reservation: str | None = ""  # nodes that are reserved for you
    constraint: str | None = ""  # features of the nodes, e.g. a100&hbm80g
    gres: str | None = "gpu"  # the GPUs of a node, with their type: gpu:a30; the number is added
    gpus_per_node: str | PositiveInt | None = ""  # instead of gres: the type alone, e.g. a30
    gpus: str | PositiveInt | None = ""  # instead of gres, for all nodes together: e.g. a30
    cpus_per_task: NonNegativeInt | None = 0  # a task is a node
    memory_gib: NonNegativeInt | None = 0  # per node; 0: all of it; null: no --mem
    exclusive: bool | str | None = False  # no other job on the nodes; or as in sbatch: user, topo
    time_min: NonNegativeInt | None = 0  # wall limit; 0: predicted
    max_time_min: PositiveInt = 24 * 60  # the longest wall limit allowed
    load_min: PositiveInt = 10  # predicted time to load a model and warm up
    signal_delay_s: PositiveInt = 120  # before the wall limit: the run stops and keeps its results
    max_requeues: NonNegativeInt = 2  # after lost nodes
    mail_type: str | None = ""  # events at which Slurm sends mail, e.g. END,FAIL
    mail_user: str | None = ""  # to whom; empty: the submitting user
    sbatch: dict[str, str | int | bool | None] = {}  # any other options, e.g. {comment: mlperf};
    # they have precedence over those above; null leaves an option out, e.g. {requeue: null}
    setup: tuple[str, ...] = ()  # shell commands in the job's script before the run, e.g.
    # [module load apptainer]


class SystemDescription(Struct, frozen=True, kw_only=True):
    """The system description of a submission, by MLCommons' names. Values that a run measures are
    only used if a run could not measure them."""

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
    """Where a run runs. Relative paths start at the current folder.

    A site without ``slurm`` is this machine; its ``nodes`` is empty.
    """

    name: str
    description: str = ""
    device: Device = Device.CPU  # on which engines run
    host: str = "127.0.0.1"  # address that the dispatcher listens on
    run_root: str = "runs"  # folder for the runs; on a cluster, on the shared file system
    num_replicas: PositiveInt | None = None  # null: one on this machine, else as many as fit
    target_qps: dict[str, dict[Scenario, PositiveFloat]] = {}  # load of one replica, by
    # benchmark; a run's load is this times its replicas. Absent: the benchmark's own
    nodes: tuple[SiteNode, ...] = ()  # of a cluster: each node for runs, or hostlists of them
    interface: str = ""  # network interface between the nodes, e.g. eth0
    slurm: SiteSlurm | None = None
    container: Container | None = None
    cache: str = ""  # writable folder for models and tokenized data; empty: the user's cache
    models: dict[str, str] = {}  # model name -> folder
    datasets: dict[str, str] = {}  # data set name -> file
    node_local: tuple[str, ...] = ()  # folders that only compute nodes have: image, model, data
    # or binds in them are not checked before submission
    cpu: CpuDevice = CpuDevice()
    timeouts: Timeouts = Timeouts()
    check_fit: bool = True  # refuse a model that does not suit the engine's ranks, lengths or GPUs
    measure_overhead: bool | None = None  # before the performance test, what the harness costs;
    # null: unless the preset is quick or the engine is replay
    notify: str = ""  # shell command at the end of each run; --notify has precedence
    env: dict[str, str] = {}  # added to the engines' environment
    price_per_node_hour: PositiveFloat | None = None  # in any currency; gives the cost of tokens
    system: SystemDescription = SystemDescription()  # for a submission: what runs cannot measure
