"""A run on one of its nodes: ``python -m sut.run RUN_DIR``, once on each.

The first node is the head: it serves the replicas of all nodes, runs each phase under LoadGen, and
writes the record and the report, on failure too. Exit code: the record's. The others run engines,
as the head tells them, and leave with 0 when it says that the run is over.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sut.cluster.allocation import Allocation, check, of_process
from sut.command import run_dir_of
from sut.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_VALID, RunError, SutError
from sut.inputs import dataset, model
from sut.inputs.dataset import Samples
from sut.machine.meters import Sampler
from sut.plan.plan import Mode, Plan, load_plan
from sut.report import render
from sut.results import attempts
from sut.results.phase_record import Measured, interrupted, judge_phase
from sut.results.progress import Progress
from sut.results.record import Hashes
from sut.run.phase import run_phase
from sut.run.recorder import Recorder
from sut.run.replicas import Serving
from sut.run.signals import Signals
from sut.rundir import RunDir
from sut.serving import follower, preflight
from sut.serving.nodes import Nodes


def main(argv: Sequence[str] | None = None) -> NoReturn:
    run_dir = run_dir_of(argv, "sut.run", "Run a plan on this node, as its job has it.")
    signals = Signals()
    allocation = of_process()
    try:
        plan = load_plan(run_dir.plan)
        check(plan, allocation)
        if allocation.node > 0:
            _leave(_serve(plan, run_dir, allocation), "")
        recorder = Recorder(plan, run_dir, allocation)
        recorder.begin()
    except SutError as error:
        _leave(error.exit_code, f"error: {error}")
    except OSError as error:
        _leave(EXIT_FAILED, f"error: {error.filename or run_dir}: {error.strerror}")
    failure = _attempt(recorder, allocation, signals)
    try:
        record = recorder.finish(failure)
    except OSError as error:
        # A full disk, most likely: say here what the record would have said.
        _leave(EXIT_FAILED, f"{failure or ''}\nerror: {run_dir.record}: {error.strerror}".strip())
    _leave(record.exit_code, render.summary(record, run_dir))


def _serve(plan: Plan, run_dir: RunDir, allocation: Allocation) -> int:
    """Another node than the head. Raises InputError where the head does, and asks for none where
    the head needs none."""
    if attempts.earlier(plan, run_dir).all_done(plan):
        return EXIT_VALID
    return follower.serve(plan, run_dir, allocation)


def measure(
    recorder: Recorder, allocation: Allocation, progress: Progress, signals: Signals
) -> None:
    """The run itself: everything between the plan and the record. Raises SutError."""
    plan, run_dir = recorder.plan, recorder.run_dir
    if recorder.all_done:
        return
    meters = Sampler(run_dir.telemetry(allocation.nodes[allocation.node]))
    with meters, Nodes(plan, run_dir, allocation) as nodes, signals.heeded():
        nodes.join(progress)
        with recorder.step("preflight"):
            progress.step("preflight: looking for the model")
            model_path = _model_path(plan)
            found = preflight.look(nodes, model_path, progress)
            recorder.preflight, recorder.other_nodes = found.nodes, found.environments
            preflight.require(found.nodes)
        if plan.mode is Mode.PREFLIGHT:
            return
        with recorder.step("prepare"):
            progress.step("preparing the model and the data")
            samples = dataset.load(plan, model_path)
            answers = dataset.replay_answers(plan, samples, model_path)
            model_sha256 = None if model_path is None else model.model_hash(model_path)
            recorder.keep_hashes(Hashes(model=model_sha256, data=samples.sha256))
        with Serving(plan, run_dir, nodes, samples.prompts, model_path, answers) as serving:
            with recorder.step("load"):
                serving.load(progress)
            with recorder.step("warm-up"):
                progress.step("warming up")
                serving.warm_up()
            for mode in recorder.phases_to_do:
                measured = _run_phase(mode, serving, recorder, samples, progress)
                with _judging(mode, signals), recorder.step(f"judge {mode}"):
                    progress.step(f"judging {mode}")
                    recorder.add(
                        judge_phase(mode, plan, run_dir, samples, measured, model_path, nodes.names)
                    )


def _model_path(plan: Plan) -> Path | None:
    """Where the model is, or will have to be. An embedded one is made on first use."""
    if not plan.uses_model:
        return None
    return model.locate(plan.model) if plan.model.embedded else Path(plan.model.path)


def _run_phase(
    mode: Mode, serving: Serving, recorder: Recorder, samples: Samples, progress: Progress
) -> Measured:
    try:
        with recorder.step(mode):
            return run_phase(mode, serving, recorder.run_dir, samples, progress)
    except RunError:
        stats = serving.dispatcher.stats()
        recorder.interrupted = interrupted(
            mode, recorder.plan, recorder.run_dir, stats, serving.nodes.names
        )
        raise


def _judging(mode: Mode, signals: Signals) -> contextlib.AbstractContextManager[None]:
    """A measurement that is over is not lost to a signal. Scoring all answers takes minutes, and a
    wall limit does not wait for that."""
    return contextlib.nullcontext() if mode is Mode.ACCURACY else signals.deferred()


def _attempt(recorder: Recorder, allocation: Allocation, signals: Signals) -> SutError | None:
    try:
        measure(recorder, allocation, Progress(recorder.run_dir.progress), signals)
    except SutError as error:
        return error
    except OSError as error:
        where = error.filename or recorder.run_dir
        return RunError(f"{where}: {error.strerror or error}", code="os_error")
    except Exception as error:
        traceback.print_exc()
        return RunError(f"internal error: {error!r}; see the job's log", code="internal_error")
    return None


def _leave(code: int, message: str) -> NoReturn:
    """End the process without destructors: LoadGen's thread may still be in its test."""
    if message:
        print(message, file=sys.stderr if code in (EXIT_BAD_INPUT, EXIT_FAILED) else sys.stdout)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
