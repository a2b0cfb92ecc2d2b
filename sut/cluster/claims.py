"""Which attempt owns a run directory: at most one at a time.

A claim is a file ``claims/N``; the highest N is valid. O_EXCL gives a number to one process only,
also on NFS. The owner takes the next number before each write of a record, so that it notices
another owner even where its view of the folder is old.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from sut.cluster import runs, slurm
from sut.cluster.liveness import Process, this_process
from sut.errors import InputError, RunError, quoted
from sut.rundir import RunDir
from sut.values import UNDECODABLE, Struct

TOKEN = "SUT_CLAIM"  # in the environment of a process that works for the owner


class Owner(Struct, frozen=True, kw_only=True):
    """An attempt. ``job_id`` is empty without Slurm; ``released``: it writes no more records."""

    token: str
    job_id: str
    restart: int
    process: Process
    released: bool = False

    def __str__(self) -> str:
        job = f"job {self.job_id}, " if self.job_id else ""
        return f"{job}process {self.process.pid} on {self.process.host}"


class Claim:
    """The ownership of ``run_dir``, from :func:`take`."""

    def __init__(self, run_dir: RunDir, owner: Owner) -> None:
        self._run_dir = run_dir
        self._owner = owner

    @property
    def token(self) -> str:
        return self._owner.token

    def renew(self) -> None:
        """Call before each write of a record. Raises RunError if another attempt owns the run
        directory, OSError."""
        while True:
            number, last = _last(self._run_dir)
            if last is None or last.token != self.token:
                raise RunError(
                    f"another attempt has taken over the run directory ({self._run_dir}): "
                    f"{last or 'its claim was removed'}",
                    hint=f"python -m sut.watch {quoted(self._run_dir)}",
                    code="taken_over",
                )
            if _create(self._run_dir, number + 1, self._owner):
                return

    def release(self) -> None:
        """Let another attempt begin at once. Raises as :meth:`renew`."""
        self._owner = msgspec.structs.replace(self._owner, released=True)
        self.renew()


def take(run_dir: RunDir, job_id: str, restart: int, token: str | None = None) -> Claim:
    """Own ``run_dir`` from now on; with the ``token`` of a living owner, for it. Raises InputError
    if another attempt owns it and can still be running, OSError."""
    owner = Owner(
        token=secrets.token_hex(16), job_id=job_id, restart=restart, process=this_process()
    )
    while True:
        number, last = _last(run_dir)
        if last is not None and last.token == token:
            owner = last
        else:
            _require_ended(last, owner, run_dir)
        if _create(run_dir, number + 1, owner):
            return Claim(run_dir, owner)


def require_free(run_dir: RunDir, job_id: str, restart: int) -> None:
    """Raise InputError where :func:`take` would."""
    this = Owner(token="", job_id=job_id, restart=restart, process=this_process())
    _require_ended(_last(run_dir)[1], this, run_dir)


def begins(run_dir: RunDir, *, active: bool) -> bool:
    """Whether an attempt has owned ``run_dir`` since its record was written, and lives. ``active``:
    its job runs, for an attempt on another machine."""
    last = _last(run_dir)[1]
    if last is None or last.released or not last.token:  # without a token it is being written
        return False
    try:
        own = [path for path in run_dir.claims.iterdir() if _owner(path).token == last.token]
        claimed = min(path.stat().st_mtime_ns for path in own)  # later ones are renewals
        if claimed <= run_dir.record.stat().st_mtime_ns:
            return False
    except (OSError, ValueError):
        return False
    lives = last.process.lives()
    return active if lives is None else lives


def _require_ended(last: Owner | None, this: Owner, run_dir: RunDir) -> None:
    state = "" if last is None else _state(last, this, run_dir)
    if state:
        end = f"kill it ({last})"
        if last and last.job_id:
            end = " ".join(slurm.cancel_command(last.job_id, runs.cluster_of(run_dir)))
        raise InputError(
            f"the run directory is in use ({run_dir}): {state}",
            hint=f"wait until it has finished, or: {end}; if it has ended for certain: "
            f"rm -r {run_dir.claims}",
        )


def _state(last: Owner, this: Owner, run_dir: RunDir) -> str:
    """Why the owner can still be running; empty if it has ended, or is this process."""
    if last.released:
        return ""
    lives = last.process.lives()
    if lives is not None:
        is_this = last.process == this.process
        return f"{last} is running" if lives and not is_this else ""
    if last.job_id and last.job_id == this.job_id and last.restart < this.restart:
        return ""  # Slurm ends a job before it starts it again
    if not last.job_id:
        return f"{last} may be running"
    job = slurm.job_state(last.job_id, runs.cluster_of(run_dir))
    if job is not None:
        return f"job {last.job_id} is {job.state}" if job.alive else ""
    return "" if slurm.cluster_name() else f"{last} may be running: Slurm does not answer"


def _last(run_dir: RunDir) -> tuple[int, Owner | None]:
    """The highest number, 0 without any, and its owner."""
    try:
        number = max((int(n) for n in os.listdir(run_dir.claims) if n.isdecimal()), default=0)
    except FileNotFoundError:
        return 0, None
    if number == 0:
        return 0, None
    return number, _owner(run_dir.claims / str(number))


def _owner(claim: Path) -> Owner:
    try:
        return msgspec.json.decode(claim.read_bytes(), type=Owner)
    except (OSError, *UNDECODABLE):  # it is being written
        unknown = Process(host="(unknown)", pid=0, started=None)
        return Owner(token="", job_id="", restart=0, process=unknown)


def _create(run_dir: RunDir, number: int, owner: Owner) -> bool:
    """Whether this process got the number."""
    run_dir.claims.mkdir(exist_ok=True)
    path = run_dir.claims / str(number)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(owner))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True
