"""Collects what a run does while it does it, and writes the record however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sut import environment
from sut.errors import EXIT_FAILED, EXIT_INVALID, EXIT_VALID, RunError, SutError
from sut.plan import Plan
from sut.results import record, report
from sut.results.verdict import overall
from sut.rundir import RunDir, write_atomic


class Recorder:
    """One run's record in the making."""

    def __init__(self, plan: Plan, run_dir: RunDir) -> None:
        self.plan = plan
        self.run_dir = run_dir
        self.hashes = record.Hashes()
        self._environment = environment.collect()
        self._created = datetime.now(UTC)
        self._start = time.monotonic()
        self._steps: list[record.Step] = []
        self._phases: list[record.PhaseRecord] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; a step that fails is timed too."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._steps.append(
                record.Step(
                    name=name,
                    start_s=round(begin - self._start, 3),
                    duration_s=round(time.monotonic() - begin, 3),
                )
            )

    def add(self, phase: record.PhaseRecord) -> None:
        """Keep a phase that is over, on disk too: a later failure does not lose it."""
        self._phases.append(phase)
        interim = RunError("the run ended before its record was complete", code="interrupted")
        record.write(self._record(interim), self.run_dir)

    def finish(self, failure: SutError | None) -> record.Record:
        """Write the record and the report, and return the record. Raises OSError."""
        final = self._record(failure)
        record.write(final, self.run_dir)
        write_atomic(self.run_dir.report, report.render(final))
        return final

    def _record(self, failure: SutError | None) -> record.Record:
        verdict = None if failure else overall(phase.verdict for phase in self._phases)
        return record.Record(
            run_id=self.run_dir.root.name,
            created_utc=self._created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            status="failed" if failure else "completed",
            exit_code=_exit_code(failure, verdict == "VALID"),
            verdict=verdict,
            failure=None if failure is None else _failure(failure),
            plan_digest=self.plan.digest(),
            plan=self.plan,
            environment=self._environment,
            hashes=self.hashes,
            timings=tuple(self._steps),
            phases=tuple(self._phases),
        )


def _exit_code(failure: SutError | None, valid: bool) -> int:
    if failure is not None:
        return failure.exit_code or EXIT_FAILED
    return EXIT_VALID if valid else EXIT_INVALID


def _failure(error: SutError) -> record.Failure:
    replica = error.replica if isinstance(error, RunError) else None
    node = error.node if isinstance(error, RunError) else None
    return record.Failure(code=error.code, message=str(error), replica=replica, node=node)
