"""The search for the highest VALID load on this run's engines: measure, simulate, try, and again.

A trial is the run's performance phase. One that is INVALID is set aside in its own folder, and the
next one is lower; the last is the run's result. The state is saved after each measurement, so that
a requeued run continues the search.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence

import msgspec

from sut.errors import RunError
from sut.plan import duration
from sut.plan.plan import Mode, Plan
from sut.results import peak, service, steps, tuning
from sut.results.offered import OfferedLoad
from sut.results.phase_record import PhaseRecord
from sut.results.tuning import Probe, State, Trial, Tuning
from sut.run import measure_load
from sut.run.measure_load import Measured
from sut.run.recorder import Recorder
from sut.run.replicas import Replicas
from sut.run.simulator import Simulator, output_tokens
from sut.units import number, quantity

Try = Callable[[], PhaseRecord]  # runs and judges the performance phase at the recorder's load

SMALL = 8  # the small batch is this part of the full one
SMALL_SHARE = 0.25  # of a probe's time


class Tuner:
    """One search. ``prompt_tokens`` are by index of the sample."""

    def __init__(
        self, recorder: Recorder, replicas: Replicas, prompt_tokens: Sequence[int]
    ) -> None:
        self._recorder = recorder
        self._replicas = replicas
        self._plan: Plan = recorder.plan
        self._run_dir = recorder.run_dir
        self._prompt_tokens = prompt_tokens
        self._limits = measure_load.limits_of(replicas, recorder.run_dir)

    def run(self, attempt: Try) -> None:
        """Search, and add the last trial to the record. Raises RunError."""
        state = tuning.read(self._run_dir.tuning)
        if state is None:
            with self._recorder.step("calibrate"):
                state = self._saved(self._calibrated())
        while not tuning.is_over(state.tuning.trials):
            state = self._saved(self._tried(state, attempt))

    def _saved(self, state: State) -> State:
        self._recorder.keep_tuning(state.tuning)
        tuning.write(self._run_dir.tuning, state)
        return state

    def _calibrated(self) -> State:
        """Measure a small and a full batch, and the batch of the peak that these predict."""
        places, progress = self._plan.engine.max_num_seqs, self._recorder.progress
        progress.step("tuning: measuring a small batch")
        small = self._probe("small batch", max(1, places // SMALL), tuning.SHORTEST_PROBE_S / 2)
        rate = small[0].batch.samples_per_s
        about_s = tuning.probe_s(self._phase_s(rate))
        progress.step(f"tuning: measuring a full batch (about {quantity(about_s, 's')})")
        full = self._probe("full batch", places, about_s)
        load = OfferedLoad(
            target_qps=float(f"{full[0].batch.samples_per_s:.4g}"),
            full=full[0].batch,
            small=small[0].batch,
            reason="measured with all places taken",
        )
        state = State(
            tuning=Tuning(limits=self._limits, probes=(small[1], full[1])),
            load=load,
            steps=(*tuning.thinned(small[0].steps), *tuning.thinned(full[0].steps)),
            output_tokens=tuple(output_tokens(full[0].samples, self._plan.dataset.num_samples)),
        )
        if self._limits is None:
            return state
        state = self._simulated(state)
        return self._simulated(self._probed_at_peak(state))

    def _probed_at_peak(self, state: State) -> State:
        """Measure the batch that the simulated peak has on average."""
        found = state.tuning.peak
        assert found is not None
        at = found.at_peak or found.tried[0]
        in_flight = round(at.mean_in_flight / len(self._plan.replicas))
        in_flight = min(self._plan.engine.max_num_seqs, max(1, in_flight))
        about_s = tuning.probe_s(self._phase_s(found.target_qps or state.load.small.samples_per_s))
        self._recorder.progress.step(
            f"tuning: measuring the batch of the simulated peak, {number(in_flight)} a replica "
            f"(about {quantity(about_s, 's')})"
        )
        measured, probe = self._probe("batch of the peak", in_flight, about_s)
        return msgspec.structs.replace(
            state,
            tuning=msgspec.structs.replace(state.tuning, probes=(*state.tuning.probes, probe)),
            steps=(*state.steps, *tuning.thinned(measured.steps)),
        )

    def _probe(self, name: str, per_replica: int, about_s: float) -> tuple[Measured, Probe]:
        begin = time.monotonic()
        deadline = begin + self._plan.timeouts.warmup_s + 10 * about_s
        measured = measure_load.measured(
            self._replicas, per_replica, about_s, deadline, tuning.MOST_SAMPLES
        )
        probe = Probe(
            name=name,
            in_flight=measured.batch.in_flight,
            samples_per_s=measured.batch.samples_per_s,
            num_steps=len(measured.steps),
            duration_s=round(time.monotonic() - begin, 3),
        )
        return measured, probe

    def _phase_s(self, qps: float) -> float:
        settings, num_samples = self._plan.settings_at(qps), self._plan.dataset.num_samples
        return duration.phase_s(self._plan.scenario, Mode.PERFORMANCE, settings, num_samples)

    def _simulated(self, state: State) -> State:
        """The state with step times fitted to all its steps, and the peak at these."""
        limits, times = self._limits, service.fit(state.steps)
        assert limits is not None
        if times is None:
            raise RunError(
                f"only {quantity(len(state.steps), 'steps')} of the engines were measured, too few "
                "for a simulation",
                hint="tune a larger preset, or give the load: python -m sut.submit --set "
                f"scenarios.{self._plan.scenario}.target_qps=N",
                code="tune",
            )
        self._recorder.progress.step("tuning: simulating the run")
        simulator = Simulator(self._plan, limits, self._prompt_tokens, state.output_tokens)
        guess = state.tuning.peak.target_qps if state.tuning.peak else 0.0
        found = peak.find(
            lambda qps: simulator.attempt(qps, times), guess or state.load.full.samples_per_s
        )
        new = msgspec.structs.replace(state.tuning, service=times, peak=found)
        return msgspec.structs.replace(state, tuning=new)

    def _tried(self, state: State, attempt: Try) -> State:
        """Run a trial. One that is not the last is set aside, and its steps move the peak."""
        recorder, dispatcher = self._recorder, self._replicas.dispatcher
        load = self._load(state)
        recorder.keep_load(load)
        recorder.progress.step(f"tuning: trying {load.text}", target_qps=load.target_qps)
        measure_load.require_time(self._plan, load, recorder.tests_to_do, recorder.elapsed_s)
        begin = time.monotonic()
        dispatcher.log_steps(True)
        try:
            phase = attempt()
        finally:
            dispatcher.log_steps(False)
        trial = Trial(
            target_qps=load.target_qps,
            verdict=phase.verdict.verdict,
            duration_s=phase.duration_s or round(time.monotonic() - begin, 3),
        )
        trials = (*state.tuning.trials, trial)
        state = msgspec.structs.replace(
            state, tuning=msgspec.structs.replace(state.tuning, trials=trials)
        )
        if tuning.is_over(trials) or self._limits is None:
            recorder.keep_tuning(state.tuning)
            recorder.add(phase)
            return state
        found = steps.of_dispatcher(
            dispatcher.steps(), dispatcher.samples(), self._plan.engine.max_num_batched_tokens
        )
        self._set_aside(len(trials))
        more = (*state.steps, *tuning.thinned(found))
        return self._simulated(msgspec.structs.replace(state, steps=more))

    def _load(self, state: State) -> OfferedLoad:
        found = state.tuning.peak
        if found is None:  # no limits: all that the engines complete
            return state.load
        qps = tuning.next_load(found, state.tuning.trials)
        if qps <= 0:
            raise RunError(
                f"no load is VALID in simulation: {found.limit} is over its limit at "
                f"{quantity(found.tried[0].target_qps, 'queries/s')} already",
                hint="use more or faster engines, or smaller batches: --set engine.max_num_seqs=N",
                code="tune",
            )
        return msgspec.structs.replace(
            state.load,
            target_qps=qps,
            reason=tuning.reason(state.tuning, qps),
            service=state.tuning.service,
            peak=found,
        )

    def _set_aside(self, number_of: int) -> None:
        """Keep the files of an INVALID trial next to those of the result."""
        place = self._run_dir.trial(number_of)
        if place.exists():  # of an attempt that was killed before it saved its state
            shutil.rmtree(place)
        self._run_dir.loadgen(Mode.PERFORMANCE).rename(place)
