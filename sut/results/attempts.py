"""What earlier attempts left in a run directory, and how another goes on from it: phase by phase.

A phase that is done stays done. One that was cut off is set aside and measured anew; two halves
are never put together.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from sut.errors import CANCELLED, NODE_LOST, InputError, RunError
from sut.plan.plan import Plan
from sut.results import record
from sut.results.record import Attempt, Hashes, PhaseRecord, Record
from sut.rundir import RunDir
from sut.values import Struct

INTERRUPTIONS = frozenset({CANCELLED, NODE_LOST, record.INTERIM})


class Earlier(Struct, frozen=True, kw_only=True):
    """What is there before an attempt begins."""

    attempts: tuple[Attempt, ...] = ()
    record: Record | None = None

    @property
    def phases(self) -> tuple[PhaseRecord, ...]:
        """Those that are done."""
        return self.record.phases if self.record else ()

    def all_done(self, plan: Plan) -> bool:
        """Whether the last attempt did all but say so."""
        return bool(self.phases) and len(self.phases) == len(plan.phases)


def was_interrupted(run_dir: RunDir) -> bool:
    """Whether its last attempt was ended from outside, after which Slurm requeues a job."""
    if not run_dir.record.is_file():
        return True
    failure = record.read(run_dir.record).failure
    return failure is not None and failure.code in INTERRUPTIONS


def earlier(plan: Plan, run_dir: RunDir) -> Earlier:
    """What the attempts before this one left. Raises InputError for a run that is complete, or
    was begun with another plan."""
    attempts = _read_attempts(run_dir.attempts)
    if not run_dir.record.is_file():
        return Earlier(attempts=attempts)
    before = record.read(run_dir.record)
    if before.status == "completed":
        raise InputError(
            f"{run_dir}: this run is complete, and a run directory holds one run. To run the same "
            f"plan again: python -m sut.submit --again {run_dir}"
        )
    if before.plan_digest != plan.digest():
        raise InputError(
            f"{run_dir}: its plan was changed after the run was begun, so it can't go on. To run "
            f"the plan as it is: python -m sut.submit --again {run_dir}"
        )
    return Earlier(attempts=attempts, record=before)


def require_same(before: Earlier, hashes: Hashes, image_sha256: str | None) -> None:
    """Raise RunError where phases that are done were measured on something else than what is here:
    one record is of one model, one data set and one image."""
    if before.record is None or not before.phases:
        return
    then = before.record.hashes
    changed = [
        f"{what} was {was[:12] if was else 'none'} and is {now[:12] if now else 'none'}"
        for what, was, now in (
            ("the model's sha256", then.model, hashes.model),
            ("the data's sha256", then.data, hashes.data),
            ("the image's sha256", before.record.environment.image_sha256, image_sha256),
        )
        if was != now
    ]
    if changed:
        done = ", ".join(phase.name for phase in before.phases)
        raise RunError(
            f"this run can't go on after {done}: {'; '.join(changed)}. Measure it all anew: "
            "python -m sut.submit --again with this run directory",
            code="changed",
        )


def set_aside(run_dir: RunDir, before: Earlier) -> None:
    """Move what a cut off phase and the last attempt's engines wrote to where nothing writes.
    Raises OSError."""
    done = {phase.name for phase in before.phases}
    loadgen = run_dir.loadgen_root
    for folder in sorted(loadgen.iterdir()) if loadgen.is_dir() else []:
        if folder.name not in done and ".interrupted-" not in folder.name:
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
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{path}: {error}. Submit the run anew") from None
