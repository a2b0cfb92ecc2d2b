"""A run on one of its nodes: ``python -m sut.run RUN_DIR``, started on every node.

The first node is the head. It serves the replicas of all nodes, runs each phase under LoadGen, and
writes the record and the report, also after a failure. It exits with the record's exit code. The
other nodes run engines for the head and exit with 0 when it ends the run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sut.cluster import sbatch
from sut.cluster.allocation import Allocation, check, of_process
from sut.command import run_dir_of
from sut.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_VALID, RunError, SutError
from sut.inputs import dataset, model
from sut.inputs.dataset import Samples
from sut.machine.meters import Sampler
from sut.plan.placement import on_nodes
from sut.plan.plan import Mode, Plan, load_plan, uses_model
from sut.report.summary import summary
from sut.results import attempts, record
from sut.results.phase_record import Measured, interrupted, judge_phase
from sut.results.progress import Progress
from sut.results.record import Hashes
from sut.run import keeping, measure_load
from sut.run.phase import run_phase
from sut.run.recorder import Recorder
from sut.run.serving import Serving
from sut.run.signals import Signals, keep_code_in_memory
from sut.rundir import RunDir
from sut.serving import follower, preflight
from sut.serving.nodes import Nodes


def main(argv: Sequence[str] | None = None) -> NoReturn:
    run_dir = run_dir_of(argv, "sut.run", "Run a plan on this node of its job.")
    signals = Signals()
    keep_code_in_memory()
    allocation = of_process()
    try:
        plan = load_plan(run_dir.plan)
        check(plan, allocation, run_dir)
        signals.continuing = sbatch.continuing(plan, run_dir)
        if allocation.node > 0:
            _leave(_follow(plan, run_dir, allocation))
        recorder = Recorder(plan, run_dir, allocation)
        recorder.begin()
        failure = _attempt(recorder, allocation, signals)
        result = recorder.finish(failure)
    except SutError as error:
        _leave(error.exit_code, f"error: {error}")
    except OSError as error:
        _leave(EXIT_FAILED, f"error: {error.filename or run_dir}: {error.strerror}")
    _leave(result.exit_code, summary(result, run_dir))


def _follow(plan: Plan, run_dir: RunDir, allocation: Allocation) -> int:
    """Run a node other than the head. Raises InputError where the head does."""
    # Without phases left, the head may end before this node starts.
    if _head_is_done(run_dir, allocation) or attempts.earlier(plan, run_dir).all_done(plan):
        return EXIT_VALID
    return follower.serve(on_nodes(plan, allocation.nodes), run_dir, allocation)


def _head_is_done(run_dir: RunDir, allocation: Allocation) -> bool:
    if not run_dir.record.is_file():
        return False
    found = record.read(run_dir.record)
    this = (allocation.job_id, allocation.attempt)
    attempted = [(each.job_id, each.restart) for each in found.attempts]
    return found.status == "completed" and attempted[-1:] == [this]


def _attempt(recorder: Recorder, allocation: Allocation, signals: Signals) -> SutError | None:
    """Measure, and return the failure instead of raising it."""
    try:
        progress = Progress(recorder.run_dir.progress)
        recorder.report_to(progress)
        if not recorder.all_done:
            measure(recorder, allocation, progress, signals)
    except SutError as error:
        return error
    except OSError as error:
        where = error.filename or recorder.run_dir
        return RunError(f"{where}: {error.strerror or error}", code="os_error")
    except Exception as error:
        traceback.print_exc()
        return RunError(f"internal error: {error!r}; see the job's log", code="internal_error")
    return None


def measure(
    recorder: Recorder, allocation: Allocation, progress: Progress, signals: Signals
) -> None:
    """Measure the phases that are left. Raises SutError."""
    plan, run_dir = on_nodes(recorder.plan, allocation.nodes), recorder.run_dir
    meters = Sampler(run_dir.telemetry(allocation.nodes[allocation.node]))
    with meters, Nodes(plan, run_dir, allocation) as nodes, signals.raised():
        with recorder.step("join"):
            nodes.join(progress)
        model_path, notes = _check_nodes(recorder, nodes, allocation, progress)
        if plan.mode is Mode.PREFLIGHT:
            return
        with Serving(plan, run_dir, nodes, model_path, notes) as serving:
            with recorder.step("start engines"):
                serving.start(progress)
            samples = _prepare(recorder, serving, progress)
            _load(recorder, serving, progress)
            for mode in recorder.phases_to_do:
                measured = _run_phase(mode, recorder, serving, progress)
                with _until_judged(mode, signals):
                    _judge(mode, recorder, serving, samples, measured, progress)
            if recorder.is_valid:
                keeping.remember(nodes.kept, recorder.plan, recorder.load, run_dir.root.name)
            recorder.begin_shutdown()
        recorder.keep_engines(serving.engines)


def _check_nodes(
    recorder: Recorder, nodes: Nodes, allocation: Allocation, progress: Progress
) -> tuple[Path | None, tuple[str, ...]]:
    """Hold warm engines and run preflight. Return the model's folder, None for a plan without a
    model, and notes on the choice of engines."""
    with recorder.step("preflight"):
        progress.step("preflight: locating the model")
        plan, run_dir = recorder.plan, recorder.run_dir
        model_path = model.locate(plan.model) if uses_model(plan.engine, plan.dataset) else None
        here = on_nodes(plan, allocation.nodes)
        choice = keeping.choose(here, run_dir, allocation, nodes[0].host, model_path, progress)
        nodes.kept = choice.kept
        found = preflight.check(nodes, model_path, progress)
        recorder.keep_preflight(found)
        preflight.require(found.nodes)
    return model_path, choice.notes


def _prepare(recorder: Recorder, serving: Serving, progress: Progress) -> Samples:
    """Read the data and hash the model while the engines load."""
    plan, model_path = recorder.plan, serving.model_path
    with recorder.step("prepare"):
        progress.step("preparing the data while the engines start")
        samples = dataset.load(plan, model_path)
        answers = dataset.replay_answers(plan, samples, model_path)
        serving.connect(samples.prompts, answers, progress)
        progress.step("hashing the model while the engines load")
        model_sha256 = None if model_path is None else model.model_hash(model_path)
        data, tokens = samples.sha256, samples.tokens_sha256()
        recorder.keep_hashes(Hashes(model=model_sha256, data=data, tokens=tokens))
    return samples


def _load(recorder: Recorder, serving: Serving, progress: Progress) -> None:
    with recorder.step("load"):
        serving.load(progress)
    recorder.keep_engines(serving.engines)
    with recorder.step("warm-up"):
        progress.step("warming up")
        serving.warm_up()
    if recorder.plan.measures_load:
        with recorder.step("measure the load"):
            known = recorder.load or keeping.remembered(serving.nodes.kept, recorder.plan)
            load = known or measure_load.choose(serving.replicas, recorder.run_dir, progress)
            recorder.keep_load(load)
            measure_load.offer(load, recorder, progress)


def _run_phase(mode: Mode, recorder: Recorder, serving: Serving, progress: Progress) -> Measured:
    try:
        with recorder.step(mode):
            user_conf = recorder.plan.user_conf(recorder.chosen_qps)
            return run_phase(mode, serving.replicas, recorder.run_dir, user_conf, progress)
    except RunError:
        stats, names = serving.replicas.dispatcher.stats(), serving.nodes.names
        recorder.keep_interrupted(interrupted(mode, recorder.plan, recorder.run_dir, stats, names))
        raise


def _judge(
    mode: Mode,
    recorder: Recorder,
    serving: Serving,
    samples: Samples,
    measured: Measured,
    progress: Progress,
) -> None:
    plan, run_dir = recorder.plan, recorder.run_dir
    with recorder.step(f"judge {mode}"):
        progress.step(f"judging {mode}")
        model_path, names = serving.model_path, serving.nodes.names
        qps = recorder.chosen_qps
        recorder.add(judge_phase(mode, plan, run_dir, samples, measured, model_path, names, qps))


def _until_judged(mode: Mode, signals: Signals) -> contextlib.AbstractContextManager[None]:
    """Defer signals until a finished measurement is judged. Scoring an accuracy phase takes
    minutes, too long for a wall limit."""
    return contextlib.nullcontext() if mode is Mode.ACCURACY else signals.deferred()


def _leave(code: int, message: str = "") -> NoReturn:
    """End the process without destructors: LoadGen's thread may still be in its test."""
    if message:
        print(message, file=sys.stderr if code in (EXIT_BAD_INPUT, EXIT_FAILED) else sys.stdout)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
