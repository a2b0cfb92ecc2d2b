"""Collects a run's record while the run goes on, and writes it however the run ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from sut.cluster import claims
from sut.cluster.allocation import Allocation
from sut.errors import RunError, SutError
from sut.machine import environment, processes
from sut.machine.environment import Environment
from sut.plan.plan import Plan, Test
from sut.report.publish import publish
from sut.results import attempts, auxiliary, record
from sut.results.auxiliary import AuxiliaryFailure
from sut.results.judge import Validity, overall
from sut.results.offered import OfferedLoad
from sut.results.overhead import Overhead
from sut.results.phase_record import InterruptedPhase, PhaseRecord
from sut.results.progress import Progress
from sut.results.tuning import Tuning
from sut.rundir import RunDir
from sut.serving.preflight import Preflight, require


class Recorder:
    def __init__(self, plan: Plan, run_dir: RunDir, allocation: Allocation) -> None:
        """Raises InputError where ``run_dir`` contains a complete run or one of another plan, or
        belongs to another attempt, OSError."""
        self.plan = plan
        self.run_dir = run_dir
        self._interrupted: InterruptedPhase | None = None
        self._engines: record.Engines | None = None
        # This attempt's machines, the head first.
        self._here: tuple[Environment, ...] = (environment.collect(allocation.image_sha256),)
        self._start = time.monotonic() - processes.age_s()
        self._steps: list[record.Step] = []
        self._open: list[str] = []  # steps that have begun and not ended
        self._progress: Progress | None = None
        self.auxiliary = auxiliary.Watch(self._start)
        self._command = record.command_of(run_dir)
        attempts.earlier(plan, run_dir)  # a complete run stays as it is
        self._claim = claims.take(
            run_dir, allocation.job_id, allocation.attempt, os.environ.get(claims.TOKEN)
        )
        self._earlier = attempts.earlier(plan, run_dir)
        self._phases = list(self._earlier.phases)
        before = self._earlier.record
        # The machines of the finished phases, until keep_hashes() finds that ours are the same.
        self._machines: tuple[Environment, ...] = self._here
        if before and before.phases:
            self._machines = (before.environment, *before.nodes)
        self._hashes = before.hashes if before else record.Hashes()
        # All phases of a record are offered the same load.
        self._load = before.load if before and before.phases else None
        self._overhead = before.overhead if before else None
        self._tuning = before.tuning if before else None
        self._preflight = before.preflight if before else ()
        self._attempt = record.Attempt(
            job_id=allocation.job_id,
            restart=allocation.attempt,
            nodes=allocation.nodes,
            started_utc=attempts.utc_now(),
        )

    @property
    def all_done(self) -> bool:
        return self._earlier.all_done(self.plan)

    @property
    def tests_to_do(self) -> list[Test]:
        done = {phase.name for phase in self._phases}
        return [test for test in self.plan.tests if test.name not in done]

    @property
    def load(self) -> OfferedLoad | None:
        """The load that finished phases were offered; None until :meth:`keep_load` otherwise."""
        return self._load

    @property
    def chosen_qps(self) -> float | None:
        """The load that the run has chosen; None where the plan has its own."""
        return self._load.target_qps if self._load else None

    @property
    def elapsed_s(self) -> float:
        """Time since the start of this attempt."""
        return time.monotonic() - self._start

    @property
    def is_valid(self) -> bool:
        """Whether all phases so far are VALID."""
        return overall(phase.verdict for phase in self._phases) == "VALID"

    def keep_load(self, load: OfferedLoad) -> None:
        self._load = load

    def keep_overhead(self, overhead: Overhead) -> None:
        self._overhead = overhead

    def keep_tuning(self, tuning: Tuning) -> None:
        self._tuning = tuning

    @property
    def progress(self) -> Progress:
        """Every line of it names the current step."""
        assert self._progress is not None, "report_progress() comes first"
        return self._progress

    def report_progress(self) -> None:
        """Begin the progress file. On a terminal, as of a typed ``sut.job``, print each step."""
        terminal = sys.stderr if sys.stderr.isatty() else None
        self._progress = Progress(self.run_dir.progress, terminal)
        self.auxiliary.add(auxiliary.PROGRESS, lambda: self.progress.outage)

    def keep_preflight(self, found: Preflight) -> None:
        self._preflight, self._here = found.nodes, (self._here[0], *found.environments)
        if not self._phases:
            self._machines = self._here

    def keep_listening(self, checks: Sequence[record.PreflightCheck]) -> None:
        """Add the check of each node that needs its engines. Raises RunError where it failed."""
        self._preflight = tuple(
            msgspec.structs.replace(node, checks=(*node.checks, check))
            for node, check in zip(self._preflight, checks, strict=True)
        )
        require(self._preflight, self.run_dir)

    def keep_hashes(self, hashes: record.Hashes) -> None:
        """Raises RunError where finished phases had other files, code or hardware."""
        attempts.require_same(self._earlier, hashes, self._here, self.run_dir)
        self._hashes, self._machines = hashes, self._here

    def keep_engines(self, engines: record.Engines) -> None:
        self._engines = engines

    def keep_interrupted(self, phase: InterruptedPhase) -> None:
        self._interrupted = phase

    def begin(self) -> None:
        """Write the attempt's start to the run directory: one that is killed leaves no other trace.
        Raises OSError."""
        self._claim.renew()
        if self._earlier.attempts:
            attempts.set_aside(self.run_dir, self._earlier)
        self._write_attempts(self._attempt)
        self._add_step(record.START, self._start)
        if self.run_dir.record.is_file():
            self._write_interim()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step, also one that fails."""
        begin = time.monotonic()
        self._open.append(name)
        self._set_stage(name)
        try:
            yield
        finally:
            self._open.remove(name)
            self._set_stage(self._open[-1] if self._open else "")
            self._add_step(name, begin)

    def begin_shutdown(self, *, keeps: bool) -> None:
        """Announce that the engines are about to be stopped, or left to the next run."""
        self._announce(record.SHUTDOWN, f"{'keeping' if keeps else 'stopping'} the engines")

    def _announce(self, stage: str, text: str) -> None:
        if self._progress is not None:
            self._set_stage(stage)
            self._progress.step(text)

    def _set_stage(self, name: str) -> None:
        if self._progress is not None:
            self._progress.stage = name

    def add(self, phase: PhaseRecord) -> None:
        """Keep a finished phase, and write it to disk: a later failure does not lose it."""
        self._phases.append(msgspec.structs.replace(phase, environments=self._here))
        self._write_interim()

    def finish(self, failure: SutError | None) -> record.Record:
        """Write the record and the report, and return the record. A report that cannot be written
        is reported on standard error. Raises RunError where the record cannot be written, or is
        another attempt's."""
        self._add_shutdown()
        self._announce(record.REPORT, "writing the report")  # a final record is the newest file
        final = self._record(failure)
        try:
            self._claim.renew()
            self._write_attempts(final.attempts[-1])
            record.write(final, self.run_dir)
        except OSError as error:
            before = f"\nbefore that, the run failed: {failure}" if failure else ""
            raise RunError(
                f"record not written ({self.run_dir.record}): {error.strerror}{before}",
                code="os_error",
            ) from None
        with self.step(record.REPORT):
            failed = publish(final, self.run_dir)
        for each in failed:
            print(each.cause, file=sys.stderr)
        return self._rewrite_with_all_steps(final, failed)

    def _rewrite_with_all_steps(
        self, final: record.Record, failed: Sequence[AuxiliaryFailure]
    ) -> record.Record:
        """Replace the record on disk, which was written before the report, by one that has the
        report's time, hashes and failures. If this fails, the first one remains: it lacks nothing
        else."""
        whole = msgspec.structs.replace(
            final,
            timings=tuple(self._steps),
            auxiliary_failures=(*self._auxiliary_failures(), *failed),
        )
        try:
            self._claim.renew()
            record.write(whole, self.run_dir, with_reports=True)
            self._claim.release()
        except (OSError, SutError) as error:
            print(f"time of the report not recorded: {error}", file=sys.stderr)
            return final
        return whole

    def _add_step(self, name: str, begin: float) -> None:
        """Keep a step that ends now; ``begin`` is of :func:`time.monotonic`."""
        self._steps.append(
            record.Step(
                name=name,
                start_s=round(begin - self._start, 3),
                duration_s=round(time.monotonic() - begin, 3),
            )
        )

    def _add_shutdown(self) -> None:
        """The time since the last step, in which engines, nodes and meters were stopped."""
        last_s = max((step.start_s + step.duration_s for step in self._steps), default=0.0)
        self._add_step(record.SHUTDOWN, self._start + last_s)

    def _write_interim(self) -> None:
        self._claim.renew()
        interim = RunError("the run ended before its record was complete", code=record.INTERIM)
        record.write(self._record(interim), self.run_dir)

    def _write_attempts(self, last: record.Attempt) -> None:
        attempts.write(self.run_dir, (*self._earlier.attempts, last))

    def _auxiliary_failures(self) -> tuple[AuxiliaryFailure, ...]:
        before = self._earlier.record
        earlier = before.auxiliary_failures if before and before.phases else ()
        return (*earlier, *self.auxiliary.failures())

    def _record(self, failure: SutError | None) -> record.Record:
        judged = failure is None and self.plan.tests
        verdict = overall(phase.verdict for phase in self._phases) if judged else None
        status: record.Status = "completed" if failure is None else attempts.status_of(failure)
        failed = None if failure is None else attempts.failure_of(failure)
        attempt = msgspec.structs.replace(
            self._attempt, ended_utc=attempts.utc_now(), status=status, failure=failed
        )
        every = (*self._earlier.attempts, attempt)
        return record.Record(
            run_id=self.run_dir.root.name,
            created_utc=every[0].started_utc,
            status=status,
            exit_code=_exit_code(failure, verdict),
            verdict=verdict,
            failure=failed,
            plan_digest=self.plan.digest(),
            plan=self.plan,
            environment=self._machines[0],
            hashes=self._hashes,
            timings=tuple(self._steps),
            load=self._load,
            overhead=self._overhead,
            tuning=self._tuning,
            phases=tuple(self._phases),
            interrupted=self._interrupted,
            attempts=every,
            preflight=self._preflight,
            nodes=self._machines[1:],
            command=self._command,
            engines=self._engines,
            auxiliary_failures=self._auxiliary_failures(),
        )


def _exit_code(failure: SutError | None, verdict: Validity | None) -> int:
    return record.exit_code(verdict) if failure is None else failure.exit_code
