"""Compare the search of ``sut.tune`` with LoadGen's FindPeakPerformance, in virtual time.

``python -m benchmarks.tuning`` prints the table of docs/tuning.md. The engines are simulated, so
the highest VALID load is known: full-length runs are bisected to it. Both searches measure the same
engines, each measurement with its own noise. FindPeak is LoadGen's: it needs a VALID load to start
from, which is given; it doubles it until a run fails, bisects to 0.1 queries/s,
looks at the 99th percentiles only and runs every test to its end.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from sut import _core
from sut.report.markdown import table
from sut.results import peak, service, tuning
from sut.results.peak import Limits, Peak, Tried
from sut.results.service import ServiceTimes
from sut.results.steps import EngineStep
from sut.results.tuning import Trial
from sut.run.credit import credit
from sut.run.simulator import service_model, tried

NUM_SAMPLES, OUTPUT_TOKENS = 13_368, 128  # llama3.1-8b's data set
LIMITS = Limits(ttft_ms=2000, tpot_ms=100)
NS = 1_000_000_000
START = 0.45  # of the true peak: the VALID load that FindPeak is given
FIND_PEAK_QPS = 0.1  # LoadGen's default precision
MAX_MODEL_LEN = 4096


class Engine(NamedTuple):
    """The true engine. ``speed_spread`` is the standard deviation of a factor on all steps of a
    measurement; it and ``pad_to`` are not of the fitted form."""

    name: str
    base_us: float
    per_sequence_us: float
    per_prefill_token_us: float
    per_context_token_us: float
    max_num_seqs: int
    pad_to: int = 1
    speed_spread: float = 0.0
    noise: float = 0.03
    max_num_batched_tokens: int = 1024


ENGINES = (
    Engine("like A30", 17_000, 150, 170, 0.12, 48),
    Engine("like L40S", 11_000, 120, 65, 0.09, 128),
    Engine("like H100", 5_500, 30, 17.5, 0.018, 256),
    Engine("like A30, batch padded to 16", 17_000, 150, 170, 0.12, 48, pad_to=16),
    Engine("like H100, batch padded to 64", 5_500, 30, 17.5, 0.018, 256, pad_to=64),
    Engine(
        "like L40S, speed differs by 1.5% a run", 11_000, 120, 65, 0.09, 128, speed_spread=0.015
    ),
)


class System:
    """Measurements of an engine. Each has another seed."""

    def __init__(self, engine: Engine, seed: int, prompt_tokens: Sequence[int]) -> None:
        self.engine = engine
        self._seeds = itertools.count(1000 * seed + 1)
        self._prompt_tokens = prompt_tokens
        self._output_tokens = [OUTPUT_TOKENS] * NUM_SAMPLES

    def measured(
        self, qps: float, *, aborts: bool, truth: bool = False, log_steps: bool = False
    ) -> tuple[Tried, _core.Simulated]:
        """An official run at ``qps``. ``truth``: with the seed and speed of the true peak."""
        seed = 7 if truth else next(self._seeds)
        return self.run(qps, self._model(seed, 1.0 if truth else None), aborts, log_steps)

    def run(
        self, qps: float, model: _core.ServiceModel, aborts: bool, log_steps: bool = False
    ) -> tuple[Tried, _core.Simulated]:
        schedule = _core.schedule(
            model="llama3_1-8b",
            scenario="Server",
            user_conf=f"llama3_1-8b.Server.target_qps = {qps!r}\n",
            num_samples=NUM_SAMPLES,
        )
        allowed = peak.allowed(len(schedule))
        found = self._simulate(
            schedule,
            model,
            credit(self.engine.max_num_seqs),
            stop_over=allowed if aborts else None,
            log_steps=log_steps,
        )
        return tried(qps, schedule, found), found

    def probe(self, in_flight: int, for_s: float) -> tuple[float, list[EngineStep]]:
        """Samples/s and steps with a constant number in flight."""
        order = random.Random(11).choices(range(NUM_SAMPLES), k=tuning.MOST_SAMPLES)
        schedule = _core.Schedule(arrival_ns=[0] * len(order), sample_index=order)
        found = self._simulate(
            schedule,
            self._model(next(self._seeds)),
            in_flight,
            stop_after_ns=round(for_s * NS),
            log_steps=True,
        )
        completed = len(found.samples()["completed_ns"])
        return completed / (found.end_ns / NS), steps_of(found)

    def _simulate(
        self,
        schedule: _core.Schedule,
        model: _core.ServiceModel,
        most_in_flight: int,
        *,
        stop_over: int | None = None,
        stop_after_ns: int | None = None,
        log_steps: bool = False,
    ) -> _core.Simulated:
        return _core.simulate(
            schedule=schedule,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            service=model,
            num_replicas=1,
            max_num_seqs=self.engine.max_num_seqs,
            max_num_batched_tokens=self.engine.max_num_batched_tokens,
            max_model_len=MAX_MODEL_LEN,
            credit=most_in_flight,
            ttft_limit_ns=round(LIMITS.ttft_ms * 1e6),
            tpot_limit_ns=round(LIMITS.tpot_ms * 1e6),
            stop_over=stop_over,
            stop_after_ns=stop_after_ns,
            log_steps=log_steps,
        )

    def _model(self, seed: int, speed: float | None = None) -> _core.ServiceModel:
        engine = self.engine
        scale = random.Random(seed).gauss(1, engine.speed_spread) if speed is None else speed
        return _core.ServiceModel(
            base_us=scale * engine.base_us,
            per_sequence_us=scale * engine.per_sequence_us,
            per_prefill_token_us=scale * engine.per_prefill_token_us,
            per_context_token_us=scale * engine.per_context_token_us,
            noise=engine.noise,
            hiccup_probability=0.0005,
            hiccup_us=100_000,
            pad_to=engine.pad_to,
            seed=seed,
        )


class Answer(NamedTuple):
    qps: float
    is_valid: bool
    measured_s: float
    num_runs: int


def steps_of(found: _core.Simulated) -> list[EngineStep]:
    columns = found.steps()
    names = ("duration_ns", "num_decoding", "num_prefill_tokens", "context_tokens")
    rows = zip(*(columns[name] for name in names), strict=True)
    return [EngineStep(ns / 1e3, *rest) for ns, *rest in rows if rest[0]]


def true_peak(system: System) -> Peak:
    """Bisected by full-length runs."""
    guess = system.probe(system.engine.max_num_seqs, tuning.LONGEST_PROBE_S)[0]
    return peak.find(lambda qps: system.measured(qps, aborts=True, truth=True)[0], guess)


def tune(system: System) -> Answer:
    """As :mod:`sut.run.tune` on running engines."""
    places = system.engine.max_num_seqs
    steps = system.probe(max(1, places // 8), tuning.SHORTEST_PROBE_S)[1]
    rate, full = system.probe(places, tuning.LONGEST_PROBE_S)
    steps = tuning.thinned(steps) + tuning.thinned(full)
    measured_s = tuning.SHORTEST_PROBE_S + 2 * tuning.LONGEST_PROBE_S
    found = simulated_peak(system, steps, rate)
    at = found.at_peak
    in_flight = min(places, max(1, round(at.mean_in_flight if at else places / 2)))
    steps += tuning.thinned(system.probe(in_flight, tuning.LONGEST_PROBE_S)[1])
    found = simulated_peak(system, steps, found.target_qps)
    trials: tuple[Trial, ...] = ()
    while True:
        qps = tuning.next_load(found, trials)
        tried, run = system.measured(qps, aborts=True, log_steps=True)
        verdict = "VALID" if tried.is_valid else "INVALID"
        trials += (Trial(target_qps=qps, verdict=verdict, duration_s=run.end_ns / NS),)
        measured_s += run.end_ns / NS
        if tuning.is_over(trials):
            return Answer(qps, tried.is_valid, measured_s, len(trials))
        steps += tuning.thinned(steps_of(run))
        found = simulated_peak(system, steps, found.target_qps)


def simulated_peak(system: System, steps: Sequence[EngineStep], guess: float) -> Peak:
    times = service.fit(steps)
    assert isinstance(times, ServiceTimes)
    return peak.find(lambda qps: system.run(qps, service_model(times), True)[0], guess)


def find_peak(system: System, start: float) -> Answer:
    """LoadGen's search, with a VALID run at its answer or not."""
    measured_s, num_runs = 0.0, 0

    def passes(qps: float) -> bool:
        nonlocal measured_s, num_runs
        tried, run = system.measured(qps, aborts=False)
        measured_s, num_runs = measured_s + run.end_ns / NS, num_runs + 1
        ttft_ms, tpot_ms = tried.ttft_p99_ms or math.inf, tried.tpot_p99_ms or math.inf
        return ttft_ms <= LIMITS.ttft_ms and tpot_ms <= LIMITS.tpot_ms

    low = start
    while passes(2 * low):
        low *= 2
    high = 2 * low
    while high - low > FIND_PEAK_QPS:
        middle = (low + high) / 2
        if passes(middle):
            low = middle
        else:
            high = middle
    return Answer(low, system.measured(low, aborts=True)[0].is_valid, measured_s, num_runs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="repetitions (default: 2)")
    parser.add_argument("--engines", type=int, default=len(ENGINES), help="the first so many")
    arguments = parser.parse_args()
    source = random.Random(7)
    prompts = [
        min(2540, max(60, round(source.lognormvariate(math.log(760), 0.45))))
        for _ in range(NUM_SAMPLES)
    ]
    rows = []
    for engine in ENGINES[: arguments.engines]:
        begin = time.monotonic()
        true = true_peak(System(engine, 0, prompts))
        for seed in range(1, arguments.seeds + 1):
            ours = tune(System(engine, seed, prompts))
            theirs = find_peak(System(engine, 500 + seed, prompts), START * true.target_qps)
            rows.append(row(engine, true, ours, theirs))
            print(" | ".join(rows[-1]), f"({time.monotonic() - begin:.0f} s)", flush=True)
    head: tuple[str, ...] = (
        "engine",
        "peak, queries/s",
        "limit",
        "sut.tune",
        "verdict",
        "trials",
        "measured, s",
    )
    head += ("FindPeak", "verdict", "runs", "measured, s", "times as long")
    print("\n" + table(head, rows))
    return 0


def row(engine: Engine, true: Peak, ours: Answer, theirs: Answer) -> tuple[str, ...]:
    def error(answer: Answer) -> str:
        return f"{answer.qps:.3f} ({100 * (answer.qps / true.target_qps - 1):+.1f}%)"

    return (
        engine.name,
        f"{true.target_qps:.3f}",
        true.limit,
        error(ours),
        "VALID" if ours.is_valid else "INVALID",
        str(ours.num_runs),
        f"{ours.measured_s:,.0f}",
        error(theirs),
        "VALID" if theirs.is_valid else "INVALID",
        str(theirs.num_runs),
        f"{theirs.measured_s:,.0f}",
        f"{theirs.measured_s / ours.measured_s:.1f}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
