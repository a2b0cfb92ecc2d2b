"""Whether a run is official: a benchmark of MLPerf, changed only as its rules allow. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sut.plan import engine_args
from sut.plan.benchmark import Benchmark, EngineKind, Preset


def why_not(
    benchmark: Benchmark, preset: Preset, sets: Sequence[str], of_campaign: Sequence[str] = ()
) -> tuple[str, ...]:
    """Why a run is not official; empty if it is. ``sets`` are all of its changes, in the form of
    ``--set``; ``of_campaign`` are those that a campaign's file made."""
    because = []
    if not benchmark.official:
        because.append(f"{benchmark.name} is not an MLPerf benchmark as shipped here")
    elif not (benchmark.dataset.sha256 or benchmark.dataset.source_md5):
        because.append("the data set's official hash is not known here")
    if benchmark.engine.kind is EngineKind.REPLAY:
        because.append("the replay engine answers, not a model")
    if given := engine_args.forbidden(benchmark.engine.extra_args):
        because.append(f"MLPerf's rules forbid {', '.join(given)}")
    if preset is not Preset.OFFICIAL:
        because.append(f"preset {preset} lowers what mlperf.conf asks for")
    changed = [s for s in sets if not _free_to_choose(s)]
    if typed := [s for s in changed if s not in of_campaign]:
        because.append(f"changed on the command line: {', '.join(typed)}")
    if in_file := [s for s in changed if s in of_campaign]:
        because.append(f"changed in the campaign: {', '.join(in_file)}")
    return tuple(because)


def _free_to_choose(change: str) -> bool:
    """Whether MLPerf lets a submitter set it: the site, the engines, the load."""
    key = change.partition("=")[0]
    sizes_the_run = key.endswith(".target_qps") or key == "scenarios.singlestream.target_latency_ms"
    return key.startswith(("site.", "engine.")) or sizes_the_run
