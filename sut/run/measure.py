"""A run, from its nodes' start to the last verdict: :func:`measure`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sut.cluster.allocation import Allocation
from sut.errors import RunError
from sut.inputs import dataset, model
from sut.inputs.dataset import Samples
from sut.machine.meters import Sampler
from sut.plan.placement import gpus_of, on_nodes
from sut.plan.plan import Mode, Test, uses_model
from sut.results.auxiliary import TELEMETRY
from sut.results.measured import Measured, interrupted, record_phase
from sut.results.phase_record import PhaseRecord
from sut.results.record import Hashes
from sut.run import keeping, measure_load, overhead
from sut.run.phase import run_phase
from sut.run.recorder import Recorder
from sut.run.serving import Serving
from sut.run.signals import Signals
from sut.run.tune import Tuner
from sut.serving import preflight, wire
from sut.serving.nodes import Nodes


def measure(recorder: Recorder, allocation: Allocation, signals: Signals) -> None:
    """Measure the phases that are left. Raises SutError."""
    plan, run_dir = on_nodes(recorder.plan, allocation.nodes), recorder.run_dir
    path = run_dir.telemetry(allocation.nodes[allocation.node])
    meters = Sampler(path, places=gpus_of(plan, allocation.node))
    recorder.auxiliary.add(TELEMETRY, lambda: meters.outage)
    with meters, Nodes(plan, run_dir, allocation) as nodes, signals.raised():
        with recorder.step("join"):
            nodes.join(recorder.progress)
            for remote in nodes.remotes:
                recorder.auxiliary.add(TELEMETRY, remote.meters_outage, remote.name)
        model_path, notes = _check_nodes(recorder, nodes, allocation)
        if plan.mode is Mode.PREFLIGHT:
            return
        with Serving(nodes, model_path, notes) as serving:
            with recorder.step("start engines"):
                serving.start(recorder.progress)
            samples = _prepare(recorder, serving)
            _load(recorder, serving)
            if plan.measures_load and not plan.tune:
                _choose_load(recorder, serving, samples)
            overhead.certify(recorder, samples)
            if plan.tune:
                _tune(recorder, serving, samples, signals)
            for test in recorder.tests_to_do:
                measured = _run_phase(test, recorder, serving)
                with _until_judged(test, signals):
                    recorder.add(_judged(test, recorder, serving, samples, measured))
            if recorder.is_valid:
                keeping.remember(nodes.kept, recorder.plan, recorder.load, run_dir.root.name)
            recorder.begin_shutdown(keeps=nodes.kept is not None)
        recorder.keep_engines(serving.engines)


def _check_nodes(
    recorder: Recorder, nodes: Nodes, allocation: Allocation
) -> tuple[Path | None, tuple[str, ...]]:
    """Hold warm engines and run preflight. Return the model's folder, None for a plan without a
    model, and notes on the engines."""
    with recorder.step("preflight"):
        recorder.progress.step("preflight: locating the model")
        plan, progress = nodes.plan, recorder.progress
        model_path = model.locate(plan.model) if uses_model(plan.engine, plan.dataset) else None
        nodes.kept, notes = keeping.choose(nodes, allocation, model_path, progress)
        found = preflight.check(nodes, model_path, progress)
        recorder.keep_preflight(found)
        preflight.require(found.nodes, recorder.run_dir)
        notes += wire.remarks(plan)
    return model_path, notes


def _prepare(recorder: Recorder, serving: Serving) -> Samples:
    """Read the data and hash the model while the engines load."""
    plan, model_path, progress = recorder.plan, serving.model_path, recorder.progress
    with recorder.step("prepare"):
        progress.step("preparing the data while the engines start")
        samples = dataset.load(plan, model_path)
        answers = dataset.replay_answers(plan, samples, model_path)
        serving.connect(samples.prompts, answers, progress)
        model_sha256 = None
        if model_path is not None:
            progress.step("hashing the model while the engines load")
            model_sha256 = model.model_hash(model_path)
        data, tokens = samples.sha256, samples.tokens_sha256()
        recorder.keep_hashes(Hashes(model=model_sha256, data=data, tokens=tokens))
    return samples


def _load(recorder: Recorder, serving: Serving) -> None:
    with recorder.step("load"):
        serving.load(recorder.progress)
        recorder.keep_listening([node.listening() for node in serving.nodes])
    recorder.keep_engines(serving.engines)
    with recorder.step("warm-up"):
        recorder.progress.step("warming up")
        serving.warm_up()


def _choose_load(recorder: Recorder, serving: Serving, samples: Samples) -> None:
    """Of finished phases, of an earlier run on these engines, or measured. Raises RunError where a
    run at this load would exceed the wall limit."""
    plan = recorder.plan
    with recorder.step("measure the load"):
        load = recorder.load or keeping.remembered(serving.nodes.kept, plan)
        if load is None:
            load = measure_load.choose(
                serving.replicas, recorder.run_dir, recorder.progress, samples.prompt_lengths
            )
        recorder.keep_load(load)
        recorder.progress.step(f"offering {load.text}", target_qps=load.target_qps)
        measure_load.require_time(plan, load, recorder.tests_to_do, recorder.elapsed_s)


def _tune(recorder: Recorder, serving: Serving, samples: Samples, signals: Signals) -> None:
    """Search for the highest VALID load, unless an earlier attempt found it. The last trial is the
    performance phase; the phases after it are offered the same load."""
    test = Test(Mode.PERFORMANCE)
    if test not in recorder.tests_to_do:
        return

    def attempt() -> PhaseRecord:
        measured = _run_phase(test, recorder, serving)
        with _until_judged(test, signals):
            return _judged(test, recorder, serving, samples, measured)

    Tuner(recorder, serving.replicas, samples.prompt_lengths).run(attempt)


def _run_phase(test: Test, recorder: Recorder, serving: Serving) -> Measured:
    plan, run_dir, replicas = recorder.plan, recorder.run_dir, serving.replicas
    try:
        with recorder.step(test.name):
            qps = plan.chosen_qps(test, recorder.chosen_qps)
            return run_phase(
                test,
                replicas,
                run_dir,
                recorder.progress,
                chosen_qps=qps,
                stop_when_hopeless=plan.ends_when_hopeless,
            )
    except RunError:
        stats, names = replicas.dispatcher.stats(), serving.nodes.names
        recorder.keep_interrupted(interrupted(test, plan, run_dir, stats, names))
        raise


def _judged(
    test: Test, recorder: Recorder, serving: Serving, samples: Samples, measured: Measured
) -> PhaseRecord:
    plan, run_dir = recorder.plan, recorder.run_dir
    with recorder.step(f"judge {test.name}"):
        recorder.progress.step(f"judging {test.name}")
        model_path, names = serving.model_path, serving.nodes.names
        qps, engines = plan.chosen_qps(test, recorder.chosen_qps), serving.reports
        return record_phase(test, plan, run_dir, samples, measured, model_path, names, qps, engines)


def _until_judged(test: Test, signals: Signals) -> contextlib.AbstractContextManager[None]:
    """Defer signals until a finished measurement is judged. Scoring an accuracy phase takes
    minutes, too long for a wall limit."""
    return contextlib.nullcontext() if test.mode is Mode.ACCURACY else signals.deferred()
