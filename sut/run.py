"""Rank 0 of a run: ``python -m sut.run RUN_DIR``.

Reads the plan, serves the replicas, runs each phase under LoadGen, and writes the record
and the report, on failure too. Exit code: the record's.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import msgspec

from sut import dataset, model
from sut.errors import EXIT_BAD_INPUT, EXIT_FAILED, InputError, RunError, SutError
from sut.phase import judge_phase, run_phase
from sut.plan import EngineKind, Plan, read_plan
from sut.progress import Progress
from sut.recorder import Recorder
from sut.results import report
from sut.results.record import Hashes
from sut.rundir import RunDir
from sut.serving import Serving

CANCEL_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1:
        _leave(EXIT_BAD_INPUT, "usage: python -m sut.run RUN_DIR")
    run_dir = RunDir(arguments[0])
    try:
        recorder = Recorder(_read_plan(run_dir), run_dir)
    except InputError as error:
        _leave(EXIT_BAD_INPUT, f"error: {error}")
    failure = _attempt(recorder)
    try:
        record = recorder.finish(failure)
    except OSError as error:
        # A full disk, most likely: say here what the record would have said.
        _leave(EXIT_FAILED, f"{failure or ''}\nerror: {run_dir.record}: {error.strerror}".strip())
    _leave(record.exit_code, report.summary(record, run_dir))


def measure(recorder: Recorder, progress: Progress) -> None:
    """The run itself: everything between the plan and the record. Raises SutError."""
    plan, run_dir = recorder.plan, recorder.run_dir
    with recorder.step("prepare"):
        progress.step("preparing the model and the data")
        model_path = None if plan.engine.kind is EngineKind.REPLAY else model.locate(plan.model)
        samples = dataset.load(plan, model_path)
        recorder.hashes = Hashes(
            model=None if model_path is None else model.model_hash(model_path),
            data=samples.sha256,
        )
    with Serving(plan, run_dir, samples.prompts, model_path) as serving:
        with recorder.step("load"):
            serving.load(progress)
        with recorder.step("warm-up"):
            progress.step("warming up")
            serving.warm_up()
        for mode in plan.mode.phases:
            with recorder.step(mode):
                stats = run_phase(mode, serving, run_dir, samples, progress)
            with recorder.step(f"judge {mode}"):
                progress.step(f"judging {mode}")
                recorder.add(judge_phase(mode, plan, run_dir, samples, stats, model_path))


def _attempt(recorder: Recorder) -> SutError | None:
    try:
        _cancel_on_signals()
        measure(recorder, Progress(recorder.run_dir.progress))
    except SutError as error:
        return error
    except OSError as error:
        where = error.filename or recorder.run_dir
        return RunError(f"{where}: {error.strerror or error}", code="os_error")
    except Exception as error:
        traceback.print_exc()
        return RunError(f"internal error: {error!r}; see the job's log", code="internal_error")
    finally:
        _ignore_signals()
    return None


def _read_plan(run_dir: RunDir) -> Plan:
    try:
        return read_plan(run_dir.plan)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(
            f"{run_dir.plan}: {error}. Run directories are made by python -m sut.submit."
        ) from None


def _cancel_on_signals() -> None:
    """The first SIGTERM or SIGINT ends the run with a record; later ones change nothing."""

    def cancel(number: int, _frame: FrameType | None) -> None:
        _ignore_signals()
        raise RunError(f"cancelled by {signal.Signals(number).name}", code="cancelled")

    # sut.job starts us with SIGTERM ignored, for what stands between; it is meant for us.
    signal.signal(signal.SIGTERM, cancel)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, cancel)


def _ignore_signals() -> None:
    for each in CANCEL_SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def _leave(code: int, message: str) -> NoReturn:
    """End the process without destructors: LoadGen's thread may still be in its test."""
    print(message, file=sys.stderr if code in (EXIT_BAD_INPUT, EXIT_FAILED) else sys.stdout)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
