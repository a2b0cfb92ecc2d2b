"""What earlier attempts left in a run directory, and how the next one continues: phase by phase.

A finished phase is kept. An interrupted phase is moved aside and measured again: halves of two
attempts are never combined.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sut.errors import (
    CANCELLED,
    NO_RECORD,
    NODE_LOST,
    TRUNCATED,
    InputError,
    RunError,
    SutError,
    quoted,
)
from sut.machine.environment import Environment
from sut.plan.plan import Plan
from sut.results import record, sameness
from sut.results.phase_record import PhaseRecord
from sut.results.record import Attempt, Hashes, Record
from sut.rundir import TRIAL, RunDir, write_atomic
from sut.values import UNDECODABLE, Struct

# What a record of a lost attempt has from the attempts before it.
_KEPT = (
    *("environment", "hashes", "load", "overhead", "tuning", "phases", "preflight", "nodes"),
    "auxiliary_failures",
)
INTERRUPTIONS = frozenset({CANCELLED, NO_RECORD, NODE_LOST, record.INTERIM})
# In all phases of one record, on each of its machines: files, code, and what computes.
SAME = (
    *("image_sha256", "model_sha256", "data_sha256", "tokens_sha256"),
    *("git", "source_sha256", "packages", "loadgen", "python", "variables"),
    *("cpu_model", "num_cpus", "num_usable_cpus", "gpus", "gpu_driver"),
)
CHOSEN_BY_JOB = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")  # variables


class Earlier(Struct, frozen=True, kw_only=True):
    attempts: tuple[Attempt, ...] = ()
    record: Record | None = None

    @property
    def phases(self) -> tuple[PhaseRecord, ...]:
        """The finished ones."""
        return self.record.phases if self.record else ()

    def all_done(self, plan: Plan) -> bool:
        """Whether every phase is finished, and only the final record is missing."""
        return bool(self.phases) and len(self.phases) == len(plan.tests)


def was_interrupted(run_dir: RunDir) -> bool:
    """Whether the last attempt was ended from outside. Slurm requeues such a job."""
    if not run_dir.record.is_file():
        return True
    failure = record.read(run_dir.record).failure
    return failure is not None and failure.code in INTERRUPTIONS


def earlier(plan: Plan, run_dir: RunDir) -> Earlier:
    """What the attempts before this one left.

    Raises InputError if the run is complete or was started with another plan.
    """
    attempts = _read_attempts(run_dir.attempts)
    if not run_dir.record.is_file():
        return Earlier(attempts=attempts)
    before = record.read(run_dir.record)
    if before.status == "completed":
        raise InputError(f"this run is complete ({run_dir})", hint=_again(run_dir))
    if before.plan_digest != plan.digest():
        raise InputError(
            f"this run cannot continue ({run_dir}): its plan was changed after it started",
            hint="submit a new run: python -m sut.submit --config NAME",
        )
    return Earlier(attempts=attempts, record=before)


def has_record(run_dir: RunDir) -> bool:
    """Whether the last attempt that began has its final record."""
    return run_dir.record.is_file() and not record.read(run_dir.record).interim


def has_page(run_dir: RunDir) -> bool:
    """Whether the report's page is the last attempt's: it is drawn after the attempt's end is
    written."""
    try:
        drawn = run_dir.report_html.stat().st_mtime_ns
        return drawn >= run_dir.attempts.stat().st_mtime_ns
    except FileNotFoundError:
        return run_dir.report_html.is_file()


def close(
    plan: Plan, run_dir: RunDir, attempt: Attempt, error: SutError, environment: Environment
) -> Record:
    """Write the record of an attempt that ended with ``error`` and left none. ``attempt`` is used
    if it did not begin. Finished phases are kept. Raises OSError, InputError."""
    before = record.read(run_dir.record) if run_dir.record.is_file() else None
    others = _read_attempts(run_dir.attempts)
    if others and _began(attempt, others[-1]):
        *first, attempt = others
        others = tuple(first)
    failure = failure_of(error)
    ended = msgspec.structs.replace(
        attempt, ended_utc=utc_now(), status=status_of(error), failure=failure
    )
    attempts = (*others, ended)
    kept = {name: getattr(before, name) for name in _KEPT if before is not None and before.phases}
    given = {"environment": environment, "hashes": Hashes(), "phases": (), **kept}
    result = Record(
        run_id=run_dir.root.name,
        created_utc=attempts[0].started_utc,
        status=status_of(error),
        exit_code=error.exit_code,
        verdict=None,
        failure=failure,
        plan_digest=plan.digest(),
        plan=plan,
        timings=before.timings if before is not None and before.interim else (),
        attempts=attempts,
        command=record.command_of(run_dir),
        **given,
    )
    write(run_dir, attempts)
    record.write(result, run_dir)
    return result


def _began(attempt: Attempt, last: Attempt) -> bool:
    """Whether ``last`` is this attempt, written when it began."""
    same_job = last.job_id == attempt.job_id
    return same_job and last.status is None and last.started_utc >= attempt.started_utc


def write(run_dir: RunDir, attempts: Sequence[Attempt]) -> None:
    """Raises OSError."""
    write_atomic(run_dir.attempts, msgspec.json.encode(attempts) + b"\n")


def utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_of(error: SutError) -> record.Status:
    return "truncated" if error.code == TRUNCATED else "failed"


def failure_of(error: SutError) -> record.Failure:
    replica = error.replica if isinstance(error, RunError) else None
    node = error.node if isinstance(error, RunError) else None
    return record.Failure(code=error.code, message=str(error), replica=replica, node=node)


def _again(run_dir: RunDir) -> str:
    return f"start a new run of the plan: python -m sut.submit --again {quoted(run_dir)}"


def require_same(
    before: Earlier, hashes: Hashes, machines: Sequence[Environment], run_dir: RunDir
) -> None:
    """Raise RunError if finished phases were measured with other files, code or hardware.
    ``machines`` are this attempt's."""
    if before.record is None or not before.phases:
        return
    now = _machines(machines, hashes)
    changed = dict.fromkeys(
        each
        for phase in before.phases
        for a, b in zip(_machines(phase.environments, before.record.hashes), now, strict=False)
        for each in sameness.mismatches(a, b, SAME)
    )
    if changed:
        done = ", ".join(phase.name for phase in before.phases)
        raise RunError(
            f"this run cannot continue after {done}: {', '.join(map(str, changed))}",
            code="changed",
            hint=f"measure all phases again: python -m sut.submit --again {quoted(run_dir)}",
        )


def _machines(environments: Sequence[Environment], hashes: Hashes) -> list[sameness.Facts]:
    """Everything that the machines were given, in the order of what must be the same."""
    found = [sameness.of_machine(_without_job(each), hashes) for each in environments]
    return sorted(found, key=lambda facts: [str(facts.get(key)) for key in SAME])


def _without_job(environment: Environment) -> Environment:
    variables = {k: v for k, v in environment.variables.items() if k not in CHOSEN_BY_JOB}
    return msgspec.structs.replace(environment, variables=variables)


def set_aside(run_dir: RunDir, before: Earlier) -> None:
    """Rename the folders of interrupted phases and the last attempt's engine logs, so that
    nothing overwrites them. A search's trials are finished and keep their names. Raises OSError."""
    done = {phase.name for phase in before.phases}
    loadgen = run_dir.loadgen_root
    for folder in sorted(loadgen.iterdir()) if loadgen.is_dir() else []:
        is_kept = folder.name in done or folder.name.startswith(TRIAL)
        if not is_kept and ".interrupted-" not in folder.name:
            folder.rename(_free(folder))
    if logs := run_dir.replica_logs():
        kept = run_dir.logs / f"attempt-{len(before.attempts)}"
        kept.mkdir(exist_ok=True)
        for log in logs:
            log.rename(kept / log.name)


def _free(folder: Path) -> Path:
    number = 1
    while (moved := folder.with_name(f"{folder.name}.interrupted-{number}")).exists():
        number += 1
    return moved


def _read_attempts(path: Path) -> tuple[Attempt, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Attempt, ...])
    except FileNotFoundError:
        return ()
    except (OSError, *UNDECODABLE) as error:
        raise InputError(
            f"cannot read the attempts ({path}): {error}", hint=_again(RunDir(path.parent))
        ) from None
