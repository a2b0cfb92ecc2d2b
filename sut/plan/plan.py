"""The plan: everything one run needs, resolved and checked, as frozen values.

Two inputs make it, a :class:`sut.plan.benchmark.Benchmark` (what is measured) and a
:class:`sut.plan.site.Site` (where); :func:`sut.plan.resolve.resolve` is the only maker. The plan is
written to ``RUN_DIR/plan.json``, and every later process reads that file and nothing else.

Units stand in names: ``_ms``, ``_s``, ``_gib``; counts are ``num_`` or ``max_``.
"""

from __future__ import annotations

import enum
import hashlib
from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.plan.benchmark import (
    Accuracy,
    Compliance,
    Dataset,
    DatasetKind,
    Engine,
    EngineKind,
    Generation,
    Model,
    Preset,
    Scenario,
    ScenarioSettings,
)
from sut.plan.site import Container, CpuDevice, Device, Timeouts
from sut.values import NonNegativeInt, PositiveInt, Struct

PLAN_SCHEMA_VERSION = 1


class Mode(enum.StrEnum):
    PERFORMANCE = "performance"
    ACCURACY = "accuracy"
    COMPLIANCE = "compliance"
    ALL = "all"
    PREFLIGHT = "preflight"  # the nodes are looked at and nothing is measured


class Node(Struct, frozen=True, kw_only=True):
    """One machine of a run. Its place in ``Plan.nodes`` is its SLURM_NODEID."""

    name: str = ""  # empty: whichever node Slurm gives
    cpus: tuple[NonNegativeInt, ...] = ()  # cores its engines may use; empty: all of the job's
    gpus: NonNegativeInt = 0  # how many of its GPUs the run asks for


class Part(Struct, frozen=True, kw_only=True):
    """The ranks of one replica on one node."""

    node: NonNegativeInt  # its place in Plan.nodes
    cpus: tuple[int, ...] = ()  # CPU device: cores it is bound to; empty: all
    gpus: tuple[int, ...] = ()  # CUDA device: positions among the GPUs that are visible


class Replica(Struct, frozen=True, kw_only=True):
    """One vLLM engine: a whole model copy, on one node or spread evenly over several."""

    index: int
    parts: tuple[Part, ...]  # the first has rank 0 and the engine core


class Slurm(Struct, frozen=True, kw_only=True):
    """What is asked of Slurm for a run, by sbatch's words. Empty or 0: not asked for."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""  # of each node, e.g. gpu:a30:1
    cpus_per_task: NonNegativeInt = 0  # a task is a node
    memory_gib: NonNegativeInt = 0  # of each node; 0: all it has
    exclusive: bool = False
    time_min: PositiveInt
    signal_delay_s: PositiveInt  # how long before the wall limit the run is told
    max_requeues: NonNegativeInt  # after a node was lost
    sbatch: dict[str, str] = {}  # further options


class Plan(Struct, frozen=True, kw_only=True):
    """One run, resolved. See the module's docstring."""

    schema_version: int = PLAN_SCHEMA_VERSION
    benchmark: str
    site: str
    scenario: Scenario
    mode: Mode
    preset: Preset
    official: bool  # nothing lowered: official data, model, limits, durations and seeds
    not_official_because: tuple[str, ...]
    round: str  # the MLPerf round whose seeds LoadGen carries, e.g. v6.1
    model: Model
    dataset: Dataset
    generation: Generation
    engine: Engine
    device: Device
    cpu: CpuDevice
    nodes: tuple[Node, ...]
    replicas: tuple[Replica, ...]
    host: str  # address of this machine for a run on it alone
    interface: str = ""  # network interface that a run's nodes reach each other on
    slurm: Slurm | None = None  # None: a run on this machine, without Slurm
    container: Container | None = None  # None: the Python that submits also runs
    cache: str = ""  # folder for what is made once: models, tokenized data; empty: the user's
    loadgen_name: str  # the model key given to LoadGen
    loadgen_settings: ScenarioSettings  # preset laid over scenario
    accuracy: Accuracy | None
    compliance: Compliance | None = None  # None: no compliance test applies
    timeouts: Timeouts
    env: dict[str, str] = {}  # added to the engines' environment

    @property
    def phases(self) -> tuple[Mode, ...]:
        """The LoadGen tests of the run, in the order they run on one engine start."""
        return phases(self.mode, self.compliance)

    @property
    def uses_model(self) -> bool:
        """Whether a model folder is needed: for its weights, or for its tokenizer alone."""
        return uses_model(self.engine, self.dataset)

    def ranks_a_part(self, replica: int) -> int:
        """How many ranks each part of a replica has."""
        size = self.engine.tensor_parallel_size * self.engine.pipeline_parallel_size
        return size // len(self.replicas[replica].parts)

    def digest(self) -> str:
        """sha256 of the plan's canonical JSON: equal digests, equal runs."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def user_conf(self) -> str:
        """The text of ``user.conf``: LoadGen's ``model.Scenario.key = value`` lines.

        Spaces around ``=`` are required: LoadGen silently ignores ``key=value``.
        """
        s = self.loadgen_settings
        values: dict[str, float | int | bool | None] = {
            "target_qps": s.target_qps,
            "target_latency": s.target_latency_ms,
            "ttft_latency": s.ttft_latency_ms,
            "tpot_latency": s.tpot_latency_ms,
            "min_duration": s.min_duration_ms,
            "max_duration": s.max_duration_ms,
            "min_query_count": s.min_query_count,
            "max_query_count": s.max_query_count,
            "performance_sample_count_override": s.performance_sample_count,
            "accuracy_sample_count_override": s.accuracy_sample_count,
            "performance_issue_unique": s.performance_issue_unique,
            "sample_concatenate_permutation": s.sample_concatenate_permutation,
            "use_token_latencies": s.use_token_latencies,
        }
        prefix = f"{self.loadgen_name}.{self.scenario.loadgen}"
        lines = [f"{prefix}.{key} = {_number(v)}" for key, v in values.items() if v is not None]
        return "\n".join(lines) + "\n" if lines else ""


def phases(mode: Mode, compliance: Compliance | None) -> tuple[Mode, ...]:
    """The LoadGen tests of a mode, in the order they run; all is all that apply."""
    match mode:
        case Mode.ALL:
            tests = (Mode.PERFORMANCE, Mode.ACCURACY)
            return tests if compliance is None else (*tests, Mode.COMPLIANCE)
        case Mode.PREFLIGHT:
            return ()
        case _:
            return (mode,)


def uses_model(engine: Engine, dataset: Dataset) -> bool:
    return engine.kind is EngineKind.VLLM or dataset.kind is not DatasetKind.SYNTHETIC


def _number(value: float) -> str:
    """A number LoadGen's parser reads back exactly: integers without a point, floats in full."""
    value = int(value) if float(value).is_integer() else value
    return repr(value)


def load_plan(path: Path) -> Plan:
    """The plan stored at ``path``. Raises InputError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} holds no {path.name}. Give a run directory; python -m sut.submit "
            "makes them"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InputError(
            f"{path}: not a plan of this version: {error}. Submit it anew from its benchmark "
            "and site"
        ) from None
