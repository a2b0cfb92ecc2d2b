"""Plans for tests, resolved from the shipped configs."""

from __future__ import annotations

from collections.abc import Sequence

from sut.plan import config
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, Plan
from sut.plan.resolve import resolve


def plan_of(
    benchmark: str,
    scenario: Scenario = Scenario.SERVER,
    *,
    preset: Preset = Preset.SMOKE,
    site: str = "local",
    sets: Sequence[str] = (),
    usable_cpus: Sequence[int] = (0, 1),
    nodes: str = "",
    mode: Mode = Mode.ALL,
    repeat: int = 1,
    sweep: tuple[float, ...] = (),
) -> Plan:
    loaded, where = config.load(benchmark, site, sets)
    return resolve(
        loaded,
        where,
        scenario=scenario,
        mode=mode,
        preset=preset,
        usable_cpus=usable_cpus,
        nodes=nodes,
        sets=sets,
        repeat=repeat,
        sweep=sweep,
    )
