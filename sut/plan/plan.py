"""The plan: everything one run needs, resolved and checked, as frozen values.

Only :func:`sut.plan.resolve.resolve` creates one, from a :class:`sut.plan.benchmark.Benchmark`
(what is measured) and a :class:`sut.plan.site.Site` (where). It is written to
``RUN_DIR/plan.json``; every later process reads that file and no config.

Names carry units: ``_ms``, ``_s``, ``_gib``; counts are ``num_`` or ``max_``.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.plan import user_conf
from sut.plan.benchmark import (
    AUTO,
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
from sut.plan.fit import Fit
from sut.plan.hostlist import compact
from sut.plan.site import APPTAINER, Container, CpuDevice, Device, Timeouts
from sut.plan.slurm_options import Slurm
from sut.values import UNDECODABLE, NonNegativeInt, PositiveFloat, PositiveInt, Struct

PLAN_SCHEMA_VERSION = 2
# Fields that do not change a result: two plans that differ in them are the same.
WITHOUT_EFFECT = (
    "stop_when_hopeless",
    "price_per_node_hour",
    "node_prices",
    "measure_overhead",
    "on_replica_loss",
    "repeat",
    "fit",
)

_SUBMIT_AGAIN = "submit the benchmark again: python -m sut.submit --config NAME --site NAME"


class Mode(enum.StrEnum):
    PERFORMANCE = "performance"
    ACCURACY = "accuracy"
    COMPLIANCE = "compliance"  # the test on the data of the performance test: TEST06 or TEST09
    TEST07 = "test07"  # the compliance test with data of its own
    ALL = "all"
    PREFLIGHT = "preflight"  # checks the nodes, measures nothing


class Test(Struct, frozen=True):
    """One LoadGen test of a run. Its name is that of its folder, and the one by which a requeued
    run finds the tests that it has finished."""

    mode: Mode
    place: PositiveInt = 1  # among the run's tests of this mode

    @property
    def name(self) -> str:
        """``performance``, ``performance-2``, ..."""
        return str(self.mode) if self.place == 1 else f"{self.mode}-{self.place}"

    @classmethod
    def named(cls, name: str) -> Test:
        """The test of a name. Raises ValueError where no test has it."""
        mode, _, place = name.partition("-")
        test = cls(Mode(mode), int(place or 1))
        is_one = test.place >= 1 and test.mode not in (Mode.ALL, Mode.PREFLIGHT)
        if not is_one or test.name != name:
            raise ValueError(f"{name!r} is not the name of a test")
        return test


class OnReplicaLoss(enum.StrEnum):
    """What a run does when a replica is lost while it measures."""

    FAIL = "fail"
    CONTINUE = "continue"  # with the other replicas; the phase is INVALID
    RESTART = "restart"  # the same, and its engine is started again


class Node(Struct, frozen=True, kw_only=True):
    """One machine of a run. Its index in ``Plan.nodes`` is its SLURM_NODEID."""

    name: str = ""  # empty: any node that Slurm chooses
    cpus: tuple[NonNegativeInt, ...] = ()  # cores its engines may use; empty: all of the job's
    gpus: NonNegativeInt = 0  # number of GPUs the run asks for


class Part(Struct, frozen=True, kw_only=True):
    """The ranks of one replica on one node."""

    node: NonNegativeInt  # its index in Plan.nodes
    cpus: tuple[int, ...] = ()  # CPU device: cores it is bound to; empty: all
    gpus: tuple[int, ...] = ()  # CUDA device: indices of visible GPUs


class Replica(Struct, frozen=True, kw_only=True):
    """One engine: a whole copy of the model, on one node or spread evenly over several."""

    index: int
    parts: tuple[Part, ...]  # the first has rank 0 and the engine core


class Plan(Struct, frozen=True, kw_only=True):
    """One run, resolved. See the module's docstring."""

    schema_version: int = PLAN_SCHEMA_VERSION
    benchmark: str
    site: str
    scenario: Scenario
    mode: Mode
    preset: Preset
    official: bool  # official data, model, limits, durations and seeds
    not_official_because: tuple[str, ...]
    round: str  # the MLPerf round of LoadGen's seeds, e.g. v6.1
    model: Model
    dataset: Dataset
    generation: Generation
    engine: Engine
    device: Device
    cpu: CpuDevice
    nodes: tuple[Node, ...]
    candidates: tuple[Node, ...] = ()  # what Slurm chooses from; empty if the nodes have names
    replicas: tuple[Replica, ...]
    host: str  # this machine's address, for a run without Slurm
    interface: str = ""  # network interface between the run's nodes
    slurm: Slurm | None = None  # None: a run on this machine
    container: Container | None = None  # None: the submitting Python runs it
    cache: str = ""  # folder for models and tokenized data; empty: the user's
    loadgen_name: str  # LoadGen's model key
    loadgen_settings: ScenarioSettings  # the scenario's, overridden by the preset's
    accuracy: Accuracy | None
    compliance: Compliance | None = None  # None: the benchmark has no compliance test
    timeouts: Timeouts
    node_local: tuple[str, ...] = ()  # folders that only compute nodes have
    env: dict[str, str] = {}  # added to the engines' environment
    tune: bool = False  # search for the highest VALID load; target_qps is then auto
    measure_overhead: bool = False  # before the performance test: what the harness itself costs
    keep_engine_min: NonNegativeInt = 0  # how long the engines stay for the next run; no setting
    price_per_node_hour: PositiveFloat | None = None  # None: unknown
    node_prices: dict[str, PositiveFloat] = {}  # per hour, of nodes with another price
    stop_when_hopeless: bool = False  # end a phase that can no longer be VALID; no setting
    on_replica_loss: OnReplicaLoss = OnReplicaLoss.FAIL  # no setting
    repeat: PositiveInt = 1  # number of performance tests at each load; no setting
    sweep: tuple[PositiveFloat, ...] = ()  # the loads of a sweep, queries/s; empty: one load
    fit: Fit | None = None  # how the model fits the GPUs; None: no GPUs or no model

    @property
    def tests(self) -> tuple[Test, ...]:
        """The run's LoadGen tests, in order. No two have one name."""
        return tests(self.mode, self.compliance, self.repeat * max(1, len(self.sweep)))

    def chosen_qps(self, test: Test, of_run: float | None = None) -> float | None:
        """The load of a test, where it is not in the settings: that of a sweep's test, or the one
        that the run has chosen."""
        return load_of_sweep(test, self.sweep, self.repeat) or of_run

    def nodes_text(self) -> str:
        """The run's nodes as a hostlist, e.g. ``jw[2-3]``; empty for any node of the cluster."""
        if self.candidates:
            return f"any of {compact(node.name for node in self.candidates)}"
        return compact(node.name for node in self.nodes if node.name)

    def ranks_per_part(self, replica: int) -> int:
        size = self.engine.tensor_parallel_size * self.engine.pipeline_parallel_size
        return size // len(self.replicas[replica].parts)

    def digest(self) -> str:
        """sha256 of the plan's canonical JSON; equal plans have equal digests. What does not change
        a result makes no difference. A new field is left out, here or at its default, so that
        older records keep their digests."""
        plan = msgspec.to_builtins(msgspec.structs.replace(self, keep_engine_min=0))
        for name in WITHOUT_EFFECT:
            del plan[name]
        for name in ("tune", "sweep"):
            if not plan[name]:
                del plan[name]
        if not self.dataset.source_md5:
            del plan["dataset"]["source_md5"]
        if self.accuracy is not None and not self.accuracy.program:
            del plan["accuracy"]["program"]
        if self.compliance is not None:
            for name in ("output_tokens", "test07"):
                if getattr(self.compliance, name) is None:
                    del plan["compliance"][name]
        if self.slurm is not None and not self.slurm.setup:
            del plan["slurm"]["setup"]
        if self.container is not None and self.container.command == APPTAINER:
            del plan["container"]["command"]
        return hashlib.sha256(msgspec.json.encode(plan, order="sorted")).hexdigest()

    @property
    def ends_when_hopeless(self) -> bool:
        """Whether a performance phase that can no longer be VALID is ended, as a search's trial."""
        return self.stop_when_hopeless or self.tune

    @property
    def measures_load(self) -> bool:
        """Whether the run measures its engines and chooses its ``target_qps`` itself."""
        return self.loadgen_settings.target_qps == AUTO

    def compliance_test(self, mode: Mode) -> str:
        """MLPerf's name of the compliance test that a test of this mode is; empty if it is none."""
        if mode is Mode.COMPLIANCE and self.compliance is not None:
            return self.compliance.on_performance_data
        return "TEST07" if mode is Mode.TEST07 else ""

    def settings_at(self, target_qps: float) -> ScenarioSettings:
        """LoadGen's settings with the load that the run has chosen."""
        return msgspec.structs.replace(self.loadgen_settings, target_qps=target_qps)

    def user_conf(self, chosen_qps: float | None = None) -> str:
        """The text of ``user.conf``. ``chosen_qps`` is the load that the settings do not have, of
        the run or of a sweep's test. Without it the text has a comment there."""
        later = ""
        if chosen_qps is None and self.sweep:
            later = f"{', '.join(map(user_conf.number, self.sweep))}: one after the other"
        elif chosen_qps is None and self.measures_load:
            later = f"measured by the run in its warm-up ({AUTO})"
        qps = user_conf.target_qps(self.loadgen_settings, self.sweep, chosen_qps)
        prefix = f"{self.loadgen_name}.{self.scenario.loadgen}"
        settings = self.loadgen_settings
        if self.mode is Mode.TEST07:  # mlperf.conf has the size of the performance test's data
            count = self.dataset.num_samples
            settings = msgspec.structs.replace(settings, performance_sample_count=count)
        return user_conf.text(prefix, settings, qps, later)


def tests(mode: Mode, compliance: Compliance | None, repeat: int) -> tuple[Test, ...]:
    """The LoadGen tests of a mode, in order, with ``repeat`` performance tests."""
    performance = tuple(Test(Mode.PERFORMANCE, place + 1) for place in range(repeat))
    match mode:
        case Mode.ALL:
            both = (*performance, Test(Mode.ACCURACY))
            tested = compliance is not None and compliance.on_performance_data
            return (*both, Test(Mode.COMPLIANCE)) if tested else both
        case Mode.PERFORMANCE:
            return performance
        case Mode.PREFLIGHT:
            return ()
        case _:
            return (Test(mode),)


def load_of_sweep(test: Test, sweep: Sequence[float], repeat: int) -> float | None:
    """The load of a performance test, the first ``repeat`` of which have the sweep's first load;
    None for other tests, and without a sweep."""
    if not sweep or test.mode is not Mode.PERFORMANCE:
        return None
    return sweep[(test.place - 1) // repeat]


def uses_model(engine: Engine, dataset: Dataset) -> bool:
    """Whether a run needs a model folder, for its weights or its tokenizer."""
    return engine.kind is EngineKind.VLLM or dataset.kind is not DatasetKind.SYNTHETIC


def load_plan(path: Path) -> Plan:
    """The plan stored at ``path``. Raises InputError, also for one of another version."""
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version != PLAN_SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema version {version}; this program reads {PLAN_SCHEMA_VERSION}",
                hint=_SUBMIT_AGAIN,
            )
        return msgspec.json.decode(content, type=Plan)
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} is not a run directory: it has no {path.name}",
            hint="list the runs: python -m sut.history; start one: python -m sut.submit",
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UNDECODABLE as error:
        raise InputError(
            f"{path} is not a plan of this version: {error}", hint=_SUBMIT_AGAIN
        ) from None


class _Versioned(msgspec.Struct):
    """A plan of any version."""

    schema_version: int
