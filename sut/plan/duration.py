"""How long a run will take, and its wall limit. Pure. Estimated; LoadGen decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from sut.errors import Errors
from sut.plan.benchmark import AUTO, Compliance, Scenario, ScenarioSettings
from sut.plan.mlperf_conf import TEST06_QUERIES
from sut.plan.plan import Mode, Test
from sut.plan.site import Site
from sut.units import quantity

SLACK = 1.3  # wall time over predicted time

# Of a run that measures its load: lower than what it will choose, so that the wall limit suffices.
ASSUMED_QPS = 1.0

# mlperf.conf's values, for settings that a plan leaves out.
OFFICIAL_DURATION_S = 600.0
OFFLINE_MARGIN = 1.1
OFFICIAL_SINGLE_STREAM_QUERIES = 5_000


def of_tests(
    scenario: Scenario,
    tests: Iterable[Test],
    settings: ScenarioSettings,
    num_samples: int,
    load_of: Callable[[Test], float | None] | None = None,
    compliance: Compliance | None = None,
) -> float:
    """The predicted duration of LoadGen's tests, in seconds. ``load_of`` is the load of a test that
    has another than the settings' target_qps."""
    total_s = 0.0
    for test in tests:
        qps = load_of(test) if load_of else None
        total_s += phase_s(scenario, test.mode, _at(settings, qps), num_samples, compliance)
    return total_s


def _at(settings: ScenarioSettings, qps: float | None) -> ScenarioSettings:
    return settings if qps is None else msgspec.structs.replace(settings, target_qps=qps)


def phase_s(
    scenario: Scenario,
    phase: Mode,
    settings: ScenarioSettings,
    num_samples: int,
    compliance: Compliance | None = None,
) -> float:
    """The predicted duration of a LoadGen test, in seconds, at the target load. ``auto`` counts as
    ASSUMED_QPS."""
    one_at_a_time = scenario is Scenario.SINGLE_STREAM
    each_s = (settings.target_latency_ms or 0) / 1e3 if one_at_a_time else 0.0
    target = ASSUMED_QPS if settings.target_qps == AUTO else settings.target_qps
    qps = (1 / each_s if each_s else 1.0) if one_at_a_time else float(target or 1.0)
    if phase is Mode.ACCURACY:
        return (settings.accuracy_sample_count or num_samples) / qps
    if phase in (Mode.COMPLIANCE, Mode.TEST07):
        is_test06 = phase is Mode.COMPLIANCE and compliance and compliance.eos_token_ids
        return (TEST06_QUERIES if is_test06 else num_samples) / qps
    duration_s = OFFICIAL_DURATION_S
    if settings.min_duration_ms is not None:
        duration_s = settings.min_duration_ms / 1e3
    least: float = settings.min_query_count or (
        OFFICIAL_SINGLE_STREAM_QUERIES if one_at_a_time else num_samples
    )
    queries = max(least, duration_s * qps)
    if scenario is Scenario.OFFLINE:
        queries = max(least, OFFLINE_MARGIN * duration_s * qps)
    elif settings.min_query_count is None and not one_at_a_time:
        # LoadGen issues whole passes of the data set.
        queries = num_samples * math.ceil(queries / num_samples)
    if settings.max_query_count:
        queries = min(queries, settings.max_query_count)
    if settings.max_duration_ms:
        return min(queries / qps, settings.max_duration_ms / 1e3)
    return queries / qps


def time_min(site: Site, run_s: float, errors: Errors, *, measures_load: bool = False) -> int:
    """The wall limit of the job in minutes. Adds to ``errors`` if it exceeds the site's limit."""
    slurm = site.slurm
    assert slurm is not None
    # Measuring the load has the same deadline as the warm-up before it.
    warmup_s = site.timeouts.warmup_s * (2 if measures_load else 1)
    needed = math.ceil((SLACK * run_s + warmup_s + slurm.signal_delay_s) / 60 + slurm.load_min)
    asked = slurm.time_min or needed
    if asked > slurm.max_time_min and slurm.time_min:
        errors.add(
            f"site.slurm.time_min {slurm.time_min:,} exceeds site.slurm.max_time_min "
            f"{slurm.max_time_min:,}, the longest wall limit of site {site.name}",
            hint=f"--set site.slurm.time_min={slurm.max_time_min}",
        )
    limit = min(asked, slurm.max_time_min)
    if needed <= limit:
        return asked
    key = "slurm.max_time_min" if limit == slurm.max_time_min else "slurm.time_min"
    room = (limit - slurm.load_min) * 60 - warmup_s - slurm.signal_delay_s
    load = "raise target_qps"
    if measures_load:
        load = f"set target_qps ({AUTO} is planned with {quantity(ASSUMED_QPS, 'queries')}/s)"
    choices = f"{load}, choose a smaller --preset, or " if run_s / 60 >= 1 else ""
    errors.add(
        f"the run needs about {needed:,} minutes ({run_s / 60:,.0f} of them measuring), but site "
        f"{site.name} has a limit of {limit:,} (site.{key}), enough for "
        f"{max(0.0, room / SLACK / 60):,.0f} minutes of measuring",
        hint=f"{choices}--set site.{key}={needed}",
    )
    return limit
