"""From what a user asks for to a plan: reads the configs and this machine, resolves."""

from __future__ import annotations

import os
from pathlib import Path

from sut import config, fit, sites
from sut.benchmark import Preset, Scenario
from sut.plan import Mode, Plan
from sut.resolve import resolve
from sut.struct import Struct


class RunRequest(Struct, frozen=True, kw_only=True):
    """One run, as it is asked for. ``site`` may be empty: the one this machine belongs to."""

    benchmark: str = "smollm2-135m-news"
    site: str = ""
    nodes: str = ""
    scenario: Scenario = Scenario.SERVER
    mode: Mode = Mode.PERFORMANCE
    preset: Preset = Preset.SMOKE
    sets: tuple[str, ...] = ()


def make_plan(request: RunRequest) -> tuple[Plan, Path]:
    """The plan, and the folder its run goes into. Raises InputError."""
    where = request.site or sites.default()
    benchmark, site = config.load(request.benchmark, where, request.sets)
    model = site.models.get(benchmark.model.name, "")
    plan = resolve(
        benchmark,
        site,
        scenario=request.scenario,
        mode=request.mode,
        preset=request.preset,
        usable_cpus=sorted(os.sched_getaffinity(0)),
        nodes=request.nodes,
        model_size=fit.model_size(Path(model)) if model else None,
        sets=request.sets,
    )
    return plan, Path(site.run_root)
