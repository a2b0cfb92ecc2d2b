"""Performance tests of a plan in virtual time, on engines with fitted step times.

LoadGen's schedule is used to choose the load and for nothing else: nothing that answers queries
sees seeds, arrival times or the order of samples (docs/tuning.md).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sut.errors import InputError
from sut.plan.plan import Plan
from sut.results import peak
from sut.results.peak import Limits, Tried
from sut.results.service import ServiceTimes
from sut.results.work import Quantiles, quantiles
from sut.run.credit import credit

if TYPE_CHECKING:  # a login node has no core, and reads the help of what simulates
    from sut import _core

SEED = 1  # of the noise


class Simulator:
    """Simulates the performance phase of a plan at any load."""

    def __init__(
        self,
        plan: Plan,
        limits: Limits | None,
        prompt_tokens: Sequence[int],
        output_tokens: Sequence[int],
        most_tokens: float = math.inf,
    ) -> None:
        """``prompt_tokens`` and ``output_tokens`` are by index of the sample. Tests with more than
        ``most_tokens`` in all their answers are refused with an InputError."""
        self._plan = plan
        self._limits = limits
        self._prompt_tokens = prompt_tokens
        self._output_tokens = output_tokens
        self._left_tokens = most_tokens

    def attempt(self, qps: float, service: ServiceTimes, slowdown: float = 1.0) -> Tried:
        """A test at ``qps`` with every step ``slowdown`` times as long; ended once it cannot be
        VALID. The plan has limits."""
        schedule = self.schedule(qps)
        stop_over = max(0, peak.allowed(len(schedule)))
        return tried(qps, schedule, self.run(schedule, service, slowdown, stop_over))

    def schedule(self, qps: float) -> _core.Schedule:
        """LoadGen's, for a plan whose load is ``auto``."""
        from sut import _core

        return _core.schedule(
            model=self._plan.loadgen_name,
            scenario=self._plan.scenario.loadgen,
            user_conf=self._plan.user_conf(qps),
            num_samples=len(self._prompt_tokens),
        )

    def run(
        self,
        schedule: _core.Schedule,
        service: ServiceTimes,
        slowdown: float = 1.0,
        stop_over: int | None = None,
    ) -> _core.Simulated:
        """The test, ended once more than ``stop_over`` samples are over a limit."""
        from sut import _core

        plan, engine, limits = self._plan, self._plan.engine, self._limits
        self._left_tokens -= len(schedule) * statistics.fmean(self._output_tokens)
        if self._left_tokens < 0:
            raise InputError("it takes too long to simulate")
        return _core.simulate(
            schedule=schedule,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            service=service_model(service, slowdown),
            num_replicas=len(plan.replicas),
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_model_len=engine.max_model_len,
            credit=credit(engine.max_num_seqs),
            ttft_limit_ns=round(limits.ttft_ms * 1e6) if limits else None,
            tpot_limit_ns=round(limits.tpot_ms * 1e6) if limits else None,
            stop_over=stop_over,
        )


def tried(qps: float, schedule: _core.Schedule, found: _core.Simulated) -> Tried:
    """What the simulated test of ``schedule``, at ``qps``, shows."""
    samples = found.samples()
    ttft, tpot = (None, None) if found.stopped else latencies(samples)
    return Tried(
        target_qps=qps,
        num_samples=len(schedule),
        num_allowed=peak.allowed(len(schedule)),
        num_ttft_over=found.num_ttft_over,
        num_tpot_over=found.num_tpot_over,
        ttft_p99_ms=ttft.p99 if ttft else None,
        tpot_p99_ms=tpot.p99 if tpot else None,
        mean_in_flight=mean_in_flight(samples),
    )


def service_model(service: ServiceTimes, slowdown: float = 1.0) -> _core.ServiceModel:
    """Fitted step times as the simulator has them: their noise has a median of 1, not a mean."""
    from sut import _core

    scale = slowdown * math.exp(-(service.noise**2) / 2)
    return _core.ServiceModel(
        base_us=scale * service.base_us,
        per_sequence_us=scale * service.per_sequence_us,
        per_prefill_token_us=scale * service.per_prefill_token_us,
        per_context_token_us=scale * service.per_context_token_us,
        noise=service.noise,
        hiccup_probability=service.hiccup_probability,
        hiccup_us=slowdown * service.hiccup_us,
        seed=SEED,
    )


def output_tokens(samples: Mapping[str, Sequence[int]], num_samples: int) -> list[int]:
    """The answers' lengths by index of the sample."""
    return by_index(samples["sample_index"], samples["output_tokens"], num_samples)


def by_index(indices: Sequence[int], values: Sequence[int], num_samples: int) -> list[int]:
    """Values by index of the sample: as measured, and of measured ones in turn for the rest."""
    measured = dict(zip(indices, values, strict=True))
    some = list(measured.values())
    return [measured.get(index, some[index % len(some)]) for index in range(num_samples)]


def mean_in_flight(samples: Mapping[str, Sequence[int]]) -> float:
    """The samples in flight on all replicas, on average from the first to the last completion."""
    admitted, completed = samples["admitted_ns"], samples["completed_ns"]
    if not len(completed):
        return 0.0
    in_flight_ns = sum(end - begin for begin, end in zip(admitted, completed, strict=True))
    return in_flight_ns / max(1, max(completed) - min(admitted))


def latencies(samples: Mapping[str, Sequence[int]]) -> tuple[Quantiles, Quantiles]:
    """TTFT and TPOT, by LoadGen's rule."""
    issued, first = samples["issued_ns"], samples["first_token_ns"]
    completed, tokens = samples["completed_ns"], samples["output_tokens"]
    rows = range(len(issued))
    ttft = quantiles((first[i] - issued[i]) / 1e6 for i in rows)
    tpot = quantiles((completed[i] - first[i]) / 1e6 / max(1, tokens[i] - 1) for i in rows)
    assert ttft is not None and tpot is not None
    return ttft, tpot
