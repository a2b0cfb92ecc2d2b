"""Which engines a run gets: those that an earlier run kept, or its own.

Engines serve a run only if it asks for them with ``--keep-engine`` and nothing that decides them
differs. Whatever is in doubt, the run starts its own, and its record says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from sut.cluster.allocation import Allocation
from sut.inputs import model
from sut.plan.plan import Mode, Plan
from sut.results.offered import OfferedLoad
from sut.results.progress import Progress
from sut.serving import ended, engine_settings, keepers, kept, keys
from sut.serving.channel import LostError
from sut.serving.ended import Ended
from sut.serving.engine_settings import Settings
from sut.serving.keeper_messages import Setup, Status
from sut.serving.kept import Kept
from sut.serving.nodes import Nodes

GRACE_S = 10.0
MAX_DIFFERENCES = 3


class Choice(NamedTuple):
    """``kept`` is None for engines that end with the run. ``notes`` are for people."""

    kept: Kept | None
    notes: tuple[str, ...]


def choose(nodes: Nodes, here: Allocation, model_path: Path | None, progress: Progress) -> Choice:
    """Hold matching engines, or the keeper of new ones; end idle ones that are in the way."""
    plan, host = nodes.plan, nodes[0].host
    if plan.mode is Mode.PREFLIGHT:
        return Choice(None, ())
    if not plan.keep_engine_min:
        return Choice(None, tuple(_clear(nodes, here, {}, "", progress)))
    progress.step("looking for warm engines")
    sha256 = None if model_path is None else model.model_hash(model_path)
    settings = engine_settings.of_run(plan, host, model_path, sha256, here)
    keeper = engine_settings.id_of(settings)
    cleared = tuple(_clear(nodes, here, settings, keeper, progress))
    setup = Setup(
        keeper=keeper,
        what=f"{plan.benchmark} ({plan.engine.kind}, {plan.device})",
        settings=dict(settings),
        resources=engine_settings.resources(plan),
        job_id=here.job_id,
        keys=keys.make(len(plan.replicas)),
        until_pid=_job_process(os.environ) if here.job_id else None,
        run=str(nodes.run_dir),
        keep_s=plan.keep_engine_min * 60.0,
    )
    before = ended.of(keeper)
    found = _held(setup, host, len(plan.replicas))
    if isinstance(found, Kept):
        if found.granted is None and before is not None:
            cleared += (_how_ended(before),)
        return Choice(found, cleared)
    return Choice(None, (*cleared, f"own engines, which end with this run ({found})"))


def _how_ended(end: Ended) -> str:
    return f"the engines of these settings ended at {end.ended_utc}: {end.why}"


def _held(setup: Setup, host: str, num_replicas: int) -> Kept | str:
    """The living keeper with these settings, else a new one; where there is neither, the reason."""
    try:
        found = kept.acquire(setup.keeper, setup.run, setup.keep_s)
        if isinstance(found, str):
            return f"engines {setup.keeper}: {found}"
        return found or kept.create(setup, host, num_replicas)
    except OSError as error:
        return f"{error.filename or 'the registry of engines'}: {error.strerror or error}"
    except LostError as error:
        return f"the new keeper of engines: {error}"


def _job_process(environment: Mapping[str, str]) -> int | None:
    """The batch script or the shell of this Slurm job, which outlives its runs."""
    return int(environment.get("SLURM_TASK_PID") or 0) or None


def _clear(
    nodes: Nodes, here: Allocation, settings: Settings, keeper: str, progress: Progress
) -> Iterator[str]:
    """End idle engines on this run's cores or GPUs, except those of ``keeper``. They would take
    memory, and a busy GPU fails preflight."""
    ours, run = set(engine_settings.resources(nodes.plan)), nodes.run_dir
    try:
        found = list(keepers.living())
    except OSError:
        return
    for other, status in found:
        if other == keeper or status is None or not _in_the_way(status, ours, here):
            continue
        progress.step(f"stopping idle engines {other} ({status.what})")
        needed = "other engines" if settings else "its own"
        why = f"run {run} started {needed} on the same {_place(ours)}"
        if not keepers.stop(other, GRACE_S, why):
            yield f"ended idle engines {other}: {_why(status, settings)}"


def _in_the_way(status: Status, ours: set[str], here: Allocation) -> bool:
    return not status.run and status.job_id == here.job_id and not ours.isdisjoint(status.resources)


def _place(resources: set[str]) -> str:
    return "GPUs" if any(each.startswith("gpu") for each in resources) else "cores"


def _why(status: Status, settings: Settings) -> str:
    if not settings:
        return "this run starts its own"
    differing = engine_settings.differences(status.settings, settings)
    more = len(differing) - MAX_DIFFERENCES
    text = ", ".join(differing[:MAX_DIFFERENCES])
    return f"other {text}" + (f" and {more} more" if more > 0 else "")


def remember(found: Kept | None, plan: Plan, load: OfferedLoad | None, run_id: str) -> None:
    """Keep the load of a VALID run for the next run of the same plan on these engines."""
    if found is not None and load is not None:
        own = msgspec.structs.replace(load, measured_by=load.measured_by or run_id)
        found.memory[_key(plan)] = msgspec.json.encode(own).decode()


def remembered(found: Kept | None, plan: Plan) -> OfferedLoad | None:
    """The load that an earlier VALID run of the same plan measured on these engines."""
    text = None if found is None else found.memory.get(_key(plan))
    return None if text is None else msgspec.json.decode(text, type=OfferedLoad)


def _key(plan: Plan) -> str:
    return f"load of plan {plan.digest()}"
