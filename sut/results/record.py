"""The record of one run, ``RUN_DIR/record.json``: its plan, its machines and its measurements.

Every report, list and comparison is made from it. A failed run has one too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from sut.errors import EXIT_INVALID, EXIT_VALID, InputError, quoted
from sut.machine.environment import Environment
from sut.plan.plan import Mode, Plan
from sut.results import engine_rules, integrity
from sut.results.auxiliary import AuxiliaryFailure
from sut.results.integrity import File
from sut.results.judge import Validity
from sut.results.offered import OfferedLoad
from sut.results.overhead import Overhead
from sut.results.phase_record import InterruptedPhase, PhaseRecord
from sut.results.tuning import Tuning
from sut.rundir import RunDir, write_atomic
from sut.values import UNDECODABLE, Struct

RECORD_SCHEMA_VERSION = 2
WITHOUT_HASHES = 1  # this version's records are read; they have no hashes
INTERIM = "interrupted"  # the failure in a record written between two phases

# Steps that every run has.
START = "start"  # its process starts: imports, a survey of the machine
SHUTDOWN = "shutdown"  # engines are stopped
REPORT = "report"  # the report is written, after the record


class Failure(Struct, frozen=True, kw_only=True):
    """Why a run could not finish. ``replica`` and ``node`` are the cause; None where no single one
    is."""

    code: str
    message: str
    replica: int | None = None
    node: str | None = None

    @property
    def first_line(self) -> str:
        """Its message without the end of a log and the hint."""
        return self.message.partition("\n")[0].rstrip(":")


class Hashes(Struct, frozen=True, kw_only=True):
    """sha256 of the model's files, of the data set and of the prompts' token ids
    (:meth:`sut.inputs.dataset.Samples.tokens_sha256`); None when not reached."""

    model: str | None = None
    data: str | None = None
    tokens: str | None = None


class Step(Struct, frozen=True, kw_only=True):
    """One step of the run, e.g. ``load`` or ``warm-up``; ``start_s`` counts from the start of the
    run's process. Steps may overlap."""

    name: str
    start_s: float
    duration_s: float


class PreflightCheck(Struct, frozen=True):
    """One check of a node before engines start. ``name`` is stable, and a node may have several
    checks of one name. ``measured`` is None for a check without a number."""

    name: str
    ok: bool
    text: str
    measured: float | None = None
    unit: str = ""


class NodePreflight(Struct, frozen=True, kw_only=True):
    node: str
    checks: tuple[PreflightCheck, ...]


Status = Literal["completed", "failed", "truncated"]


class Attempt(Struct, frozen=True, kw_only=True):
    """One job of the run, or one requeue of it. ``status`` is None while it runs, and if it left no
    exit status: it was killed, or its node lost power."""

    job_id: str  # Slurm's; empty without Slurm
    restart: int  # how often Slurm had requeued that job
    nodes: tuple[str, ...]
    started_utc: str
    ended_utc: str | None = None
    status: Status | None = None
    failure: Failure | None = None


class Command(Struct, frozen=True, kw_only=True):
    """What created the run directory: a command for a shell, and the folder it was typed in."""

    text: str
    folder: str


class EngineOrigin(Struct, frozen=True, kw_only=True):
    """Where a replica's engine came from. ``warm``: an earlier run had started it. ``earlier_runs``
    and ``earlier_samples`` are what it had served before this run."""

    replica: int
    warm: bool
    started_utc: str
    earlier_runs: int = 0
    earlier_samples: int = 0


class Engines(Struct, frozen=True, kw_only=True):
    """The engines of the last attempt. ``keeper`` identifies those that stay for the next run, or
    came from an earlier one. ``kept``: they stayed after this run."""

    replicas: tuple[EngineOrigin, ...]
    keeper: str = ""
    kept: bool = False
    notes: tuple[str, ...] = ()
    refused_connections: int = 0  # to the dispatcher, by programs without an engine's key


class Record(Struct, frozen=True, kw_only=True):
    """One run. ``verdict`` is VALID only if every phase's is; None if the run failed, or was
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
    load: OfferedLoad | None = None  # of all phases; None where the plan has its own
    overhead: Overhead | None = None  # of the harness; None: not asked for, or not reached
    tuning: Tuning | None = None  # the search for the load; None: there was none
    phases: tuple[PhaseRecord, ...]
    interrupted: InterruptedPhase | None = None
    attempts: tuple[Attempt, ...] = ()  # this record is the last one's
    preflight: tuple[NodePreflight, ...] = ()
    nodes: tuple[Environment, ...] = ()  # all nodes but the first, which is environment
    command: Command | None = None  # None: unknown
    engines: Engines | None = None  # None: not started
    auxiliary_failures: tuple[AuxiliaryFailure, ...] = ()  # of no effect on the result
    files: dict[str, File] = {}  # by path, when this was written; without those of the phases
    digest: str = ""  # of this record; see sut.results.integrity

    @property
    def interim(self) -> bool:
        """Whether this was written between two phases: the run continues, or it was killed."""
        return self.failure is not None and self.failure.code == INTERIM

    @property
    def chosen_qps(self) -> float | None:
        """The load that the run has chosen; None where the plan has its own."""
        return self.load.target_qps if self.load else None

    @property
    def not_official_because(self) -> tuple[str, ...]:
        """The reasons of the plan, and the engines' settings that no rule knows."""
        engines = [report for phase in self.phases for report in phase.engines]
        return (*self.plan.not_official_because, *engine_rules.not_official_because(engines))

    @property
    def user_conf(self) -> str:
        """The text of the run's ``user.conf``."""
        return self.plan.user_conf(self.chosen_qps)

    @property
    def word(self) -> str:
        """The verdict, or without one the status in capitals."""
        return self.verdict or self.status.upper()

    @property
    def headline(self) -> str:
        return headline(self.word, self.plan.mode)


def exit_code(verdict: Validity | None) -> int:
    """The exit code of a run that did not fail."""
    return EXIT_INVALID if verdict == "INVALID" else EXIT_VALID


def headline(word: str, mode: str) -> str:
    """A run's word for people. VALID is about performance: of a run that did not measure it, the
    test that was run and whether it passed."""
    names = {Mode.ACCURACY: "accuracy", Mode.COMPLIANCE: "compliance", Mode.TEST07: "TEST07"}
    test = names.get(Mode(mode))
    if test is None or word not in ("VALID", "INVALID"):
        return word
    return f"{test} {'passed' if word == 'VALID' else 'not passed'}"


def write(record: Record, run_dir: RunDir, *, with_reports: bool = False) -> Path:
    """Write ``record.json`` atomically, with the hashes of the run's files that no phase has, and
    return its path. ``with_reports``: they are written and stay as they are. Raises OSError."""
    of_phases = {file for phase in record.phases for file in phase.files(run_dir)}
    files = [file for file in run_dir.evidence() if file not in of_phases]
    if with_reports:
        files += [file for file in (run_dir.report, run_dir.report_html) if file.is_file()]
    whole = msgspec.structs.replace(
        record,
        schema_version=RECORD_SCHEMA_VERSION,
        files=integrity.hashed(run_dir.root, files),
        digest=integrity.BLANK,
    )
    text = msgspec.json.format(msgspec.json.encode(whole), indent=2)
    write_atomic(run_dir.record, integrity.seal(text + b"\n"))
    return run_dir.record


def command_of(run_dir: RunDir) -> Command | None:
    """The command that created a run directory; None if it is unknown."""
    try:
        return msgspec.json.decode(run_dir.command.read_bytes(), type=Command)
    except (OSError, *UNDECODABLE):
        return None


def read(path: Path) -> Record:
    """The record at ``path``, a file or a run directory.

    Raises InputError for one that is missing, damaged, changed or of another schema version.
    """
    folder = path if path.is_dir() else path.parent
    path = RunDir(path).record if path.is_dir() else path
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version not in (WITHOUT_HASHES, RECORD_SCHEMA_VERSION):
            raise InputError(
                f"{path}: schema version {version}; this program reads {RECORD_SCHEMA_VERSION}",
                hint="read it with the version that wrote it",
            )
        if version != WITHOUT_HASHES and not integrity.is_intact(content):
            raise AlteredError(
                f"{path}: changed since it was written: it does not have its own digest",
                hint="restore the file that the run wrote",
            )
        return msgspec.json.decode(content, type=Record)
    except FileNotFoundError:
        if RunDir(folder).plan.is_file():
            raise InputError(
                f"{folder}: no record: the run is pending, running, or was killed",
                hint=f"python -m sut.watch {quoted(folder)}",
            ) from None
        raise InputError(f"{path}: no such file", hint="pass a run directory") from None
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", hint="pass a run directory"
        ) from None
    except UNDECODABLE as error:
        raise InputError(
            f"{path}: not a complete record: {error}", hint="restore the file that the run wrote"
        ) from None


class AlteredError(InputError):
    """A record that is not as the run wrote it."""


class _Versioned(msgspec.Struct):
    """A record of any version."""

    schema_version: int
