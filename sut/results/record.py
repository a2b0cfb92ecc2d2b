"""The record: what one run was, ran on and measured, in ``RUN_DIR/record.json``.

It is the truth every report, list and comparison is made from, and is written when the
run fails too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from sut.errors import InputError
from sut.machine.environment import Environment
from sut.plan.plan import Plan
from sut.results.compliance import Verification
from sut.results.judge import Validity, Verdict
from sut.results.mllog import Scalar
from sut.results.telemetry import NodeTelemetry
from sut.results.work import NodeWork, Quantiles, ReplicaWork
from sut.rundir import RunDir, write_atomic
from sut.values import Struct

RECORD_SCHEMA_VERSION = 1
INTERIM = "interrupted"  # the failure of a record that was written between two phases


class Failure(Struct, frozen=True, kw_only=True):
    """Why a run could not finish. ``replica`` and ``node`` are None where no single one is to
    blame."""

    code: str
    message: str
    replica: int | None = None
    node: str | None = None


class Hashes(Struct, frozen=True, kw_only=True):
    """sha256 of the model's files and of the data set; None when not reached."""

    model: str | None = None
    data: str | None = None


class Step(Struct, frozen=True, kw_only=True):
    """One step of the run, e.g. ``load`` or ``warm-up``; ``start_s`` counts from the first."""

    name: str
    start_s: float
    duration_s: float


class DispatcherStats(Struct, frozen=True, kw_only=True):
    """The dispatcher's own count of a phase. Quantiles are None before a first token."""

    elapsed_s: float
    issued: int
    completed: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    ttft_ms: Quantiles | None = None
    tpot_ms: Quantiles | None = None


class PhaseRecord(Struct, frozen=True, kw_only=True):
    """One LoadGen test. ``loadgen`` is its detail log, key by key, as LoadGen names them."""

    name: str
    loadgen: dict[str, Scalar]
    loadgen_errors: tuple[str, ...]
    verdict: Verdict
    replicas: tuple[ReplicaWork, ...]
    dispatcher: DispatcherStats | None = None
    accuracy: dict[str, float] | None = None
    num_scored: int | None = None  # samples the accuracy scores stand on
    start_unix_s: float | None = None  # when LoadGen's test was started, by the head's clock
    duration_s: float | None = None  # until it ended
    nodes: tuple[NodeWork, ...] = ()
    test06: Verification | None = None
    file_sha256: dict[str, str] = {}  # of the phase's files, by name, when it was judged
    telemetry: tuple[NodeTelemetry, ...] = ()  # of the nodes that offer any


class PreflightCheck(Struct, frozen=True, kw_only=True):
    """One look at a node before engines start. ``name`` is a stable word, and a node may have
    several of one name; ``measured`` is None where the text says it all."""

    name: str
    ok: bool
    text: str
    measured: float | None = None
    unit: str = ""


class NodePreflight(Struct, frozen=True, kw_only=True):
    node: str
    checks: tuple[PreflightCheck, ...]


class InterruptedPhase(Struct, frozen=True, kw_only=True):
    """A phase that did not come to its end: what was measured until then. Never a result."""

    name: str
    dispatcher: DispatcherStats
    replicas: tuple[ReplicaWork, ...]


Status = Literal["completed", "failed", "truncated"]


class Attempt(Struct, frozen=True, kw_only=True):
    """One job, or one requeue of it, that worked on the run. ``status`` is None while it does, and
    for ever when it ended without a word: killed, or its node lost power."""

    job_id: str  # Slurm's; empty without Slurm
    restart: int  # how often Slurm had requeued that job
    nodes: tuple[str, ...]
    started_utc: str
    ended_utc: str | None = None
    status: Status | None = None
    failure: Failure | None = None


class Record(Struct, frozen=True, kw_only=True):
    """One run. ``verdict`` is VALID only when every phase's is; None when the run failed, or was
    truncated because its wall limit was near."""

    schema_version: int = RECORD_SCHEMA_VERSION
    run_id: str
    created_utc: str  # ISO 8601, with Z
    status: Status
    exit_code: int
    verdict: Validity | None
    failure: Failure | None
    plan_digest: str
    plan: Plan
    environment: Environment
    hashes: Hashes
    timings: tuple[Step, ...]
    phases: tuple[PhaseRecord, ...]
    interrupted: InterruptedPhase | None = None
    attempts: tuple[Attempt, ...] = ()  # the last one's record this is
    preflight: tuple[NodePreflight, ...] = ()
    nodes: tuple[Environment, ...] = ()  # those of the run but the first, whose is environment

    @property
    def interim(self) -> bool:
        """Whether the run was to go on when this was written: it does, or it was killed."""
        return self.failure is not None and self.failure.code == INTERIM

    @property
    def word(self) -> str:
        """The verdict, or where there is none the status in capitals."""
        return self.verdict or self.status.upper()


def write(record: Record, run_dir: RunDir) -> Path:
    """Write ``record.json``, whole or not at all, and return its path. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    write_atomic(run_dir.record, text + b"\n")
    return run_dir.record


def read(path: Path) -> Record:
    """The record at ``path``, a file or a run folder.

    Raises InputError for one that is missing, damaged or of another schema version.
    """
    folder = path if path.is_dir() else path.parent
    path = RunDir(path).record if path.is_dir() else path
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version != RECORD_SCHEMA_VERSION:
            raise InputError(
                f"{path}: its schema version is {version}, this program reads "
                f"{RECORD_SCHEMA_VERSION}. Read it with the version that wrote it."
            )
        return msgspec.json.decode(content, type=Record)
    except FileNotFoundError:
        if RunDir(folder).plan.is_file():
            raise InputError(
                f"{folder}: this run has left no record: it is pending, running, or was killed. "
                f"See: python -m sut.watch {folder}"
            ) from None
        raise InputError(f"{path}: can't be read (it is not there). Give a run folder.") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}). Give a run folder.") from None
    except msgspec.MsgspecError as error:
        raise InputError(
            f"{path}: not a whole record: {error}. Use the file as the run wrote it."
        ) from None


class _Versioned(msgspec.Struct):
    """Any record, whatever its version."""

    schema_version: int
