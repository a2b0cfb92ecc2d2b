"""The search for the highest VALID load on running engines: its state, and what to try next. Pure.

The engines' steps are measured under a small batch, a full one, and the batch of the simulated
peak; each trial is a whole performance phase just below the peak that is simulated with all steps
measured so far. A trial that is INVALID gives more steps, and a lower next load.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from sut.results import peak as peaks
from sut.results.offered import OfferedLoad
from sut.results.peak import Limits, Peak
from sut.results.service import ServiceTimes
from sut.results.steps import EngineStep
from sut.rundir import write_atomic
from sut.units import number, quantity
from sut.values import UNDECODABLE, Struct

CONFIRM = 0.985  # of the simulated peak: the load of a trial
STEP_DOWN = 0.98  # of an INVALID trial's load: the most for the next one
MAX_TRIALS = 5
MOST_STEPS = 8_000  # that are kept of each probe
LONGEST_PROBE_S = 90.0
SHORTEST_PROBE_S = 4.0
PROBE_SHARE = 1 / 8  # of a performance phase
MOST_SAMPLES = 2_000  # of a probe


class Probe(Struct, frozen=True, kw_only=True):
    """Steps measured with a constant number of samples in flight, on all replicas together."""

    name: str
    in_flight: int
    samples_per_s: float
    num_steps: int
    duration_s: float


class Trial(Struct, frozen=True, kw_only=True):
    """A performance phase at a load."""

    target_qps: float
    verdict: str
    duration_s: float


class Tuning(Struct, frozen=True, kw_only=True):
    """A finished search, as it is recorded. ``peak`` is the last that was simulated."""

    limits: Limits | None  # None: the test has none
    service: ServiceTimes | None = None
    peak: Peak | None = None
    probes: tuple[Probe, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def measured_s(self) -> float:
        """The time in which the engines worked for the search, its last trial included."""
        of_probes = sum(probe.duration_s for probe in self.probes)
        return of_probes + sum(trial.duration_s for trial in self.trials)

    @property
    def text(self) -> str:
        """The result, the limit that binds, the margin and the effort."""
        effort = (
            f"{quantity(round(self.measured_s), 's')} of measuring: "
            f"{quantity(len(self.probes), 'probes')} and {quantity(len(self.trials), 'trials')}"
        )
        if self.peak is None or self.limits is None:
            return f"the load is what the engines complete; {effort}"
        binds = f", which {self.peak.limit} limits" if self.peak.limit else ""
        margins = peaks.margins(self.peak, self.limits)
        simulated = quantity(self.peak.target_qps, "queries/s")
        return f"simulated peak {simulated}{binds} ({margins}); {effort}"


class State(Struct, frozen=True, kw_only=True):
    """A search that goes on: what a requeued run needs to continue it."""

    tuning: Tuning
    load: OfferedLoad  # what the first batches would offer
    steps: tuple[EngineStep, ...] = ()
    output_tokens: tuple[int, ...] = ()  # of the samples, by index


def next_load(peak: Peak, trials: tuple[Trial, ...]) -> float:
    """The load of the next trial, in queries/s."""
    failed = [trial.target_qps for trial in trials if trial.verdict != "VALID"]
    most = min(failed, default=float("inf"))
    return float(f"{min(CONFIRM * peak.target_qps, STEP_DOWN * most):.4g}")


def is_over(trials: tuple[Trial, ...]) -> bool:
    return bool(trials) and (trials[-1].verdict == "VALID" or len(trials) >= MAX_TRIALS)


def probe_s(phase_s: float) -> float:
    """How long to measure, for a performance phase of ``phase_s`` seconds."""
    return min(LONGEST_PROBE_S, max(SHORTEST_PROBE_S, PROBE_SHARE * phase_s))


def thinned(steps: list[EngineStep]) -> list[EngineStep]:
    return steps[:: max(1, len(steps) // MOST_STEPS)]


def read(path: Path) -> State | None:
    """The state of an interrupted search; None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (OSError, *UNDECODABLE):
        return None


def write(path: Path, state: State) -> None:
    write_atomic(path, msgspec.json.encode(state))


def reason(tuning: Tuning, qps: float) -> str:
    """Why ``qps`` is offered, in words."""
    assert tuning.peak is not None
    trials = f"; trial {len(tuning.trials) + 1}" if tuning.trials else ""
    binds = f", which {tuning.peak.limit} limits" if tuning.peak.limit else ""
    return (
        f"{number(100 * qps / tuning.peak.target_qps)}% of the simulated peak of "
        f"{quantity(tuning.peak.target_qps, 'queries/s')}{binds}{trials}"
    )
