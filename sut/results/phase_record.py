"""What the record of a run has of each phase."""

from __future__ import annotations

from pathlib import Path

from sut.machine.environment import Environment
from sut.plan.plan import Test
from sut.results.budget import Hopeless
from sut.results.compliance import Verification
from sut.results.compliance_length import OutputLengths
from sut.results.engine_report import EngineReport
from sut.results.issue_delay import IssueDelay
from sut.results.judge import Verdict
from sut.results.losses import ReplicaLoss, Survivors
from sut.results.mllog import Scalar
from sut.results.telemetry import NodeTelemetry
from sut.results.work import NodeWork, Quantiles, ReplicaWork
from sut.rundir import RunDir
from sut.values import Struct


class DispatcherStats(Struct, frozen=True, kw_only=True):
    """The dispatcher's counts of a phase. Quantiles are None before the first token."""

    elapsed_s: float
    issued: int
    completed: int
    failed: int
    withdrawn: int = 0  # never sent: their test was ended
    prompt_tokens: int
    output_tokens: int
    ttft_ms: Quantiles | None = None
    tpot_ms: Quantiles | None = None


class PhaseRecord(Struct, frozen=True, kw_only=True):
    """One LoadGen test. ``loadgen`` is its detail log by LoadGen's keys."""

    name: str
    loadgen: dict[str, Scalar]
    loadgen_errors: tuple[str, ...]
    verdict: Verdict
    replicas: tuple[ReplicaWork, ...]
    dispatcher: DispatcherStats | None = None
    accuracy: dict[str, float] | None = None
    num_scored: int | None = None  # samples on which the accuracy scores are based
    start_unix_s: float | None = None  # start of LoadGen's test, by the head's clock
    duration_s: float | None = None
    nodes: tuple[NodeWork, ...] = ()
    engines: tuple[EngineReport, ...] = ()  # their configurations, each different one
    environments: tuple[Environment, ...] = ()  # of the nodes that measured it, the head's first
    test06: Verification | None = None
    test09: OutputLengths | None = None
    issue_delay: IssueDelay | None = None  # Server, performance; None where it is unknown
    cost_per_million_tokens: float | None = None  # of output, at the site's price
    goodput: float | None = None  # samples/s within both limits; None where a test has none
    hopeless: Hopeless | None = None  # None: it could be VALID, or had no limits on tokens
    other_cpus: float | None = None  # cores of the head's node that other programs used, on average
    losses: tuple[ReplicaLoss, ...] = ()  # in order; with one, the phase is degraded and INVALID
    survivors: Survivors | None = None  # None: no loss, or nothing after it
    file_sha256: dict[str, str] = {}  # of the phase's files, by name, at the time of the verdict
    telemetry: tuple[NodeTelemetry, ...] = ()  # of the nodes that have any

    @property
    def test(self) -> Test:
        """Raises ValueError for a name that no test has."""
        return Test.named(self.name)

    def files(self, run_dir: RunDir) -> dict[Path, str]:
        """sha256 of the files on which the verdict is based, at its time."""
        folder = run_dir.loadgen(self.name)
        return {folder / name: sha256 for name, sha256 in self.file_sha256.items()}


class InterruptedPhase(Struct, frozen=True, kw_only=True):
    """A phase that did not finish: what was measured until then. Never a result."""

    name: str
    dispatcher: DispatcherStats
    replicas: tuple[ReplicaWork, ...]
