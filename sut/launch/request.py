"""From a user's options to a plan: reads the configs and this machine, resolves."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.launch import default_site, options
from sut.plan import config, fit
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, Plan
from sut.plan.resolve import resolve
from sut.values import Struct


class RunRequest(Struct, frozen=True, kw_only=True):
    """One run, as it is asked for. ``site`` may be empty: the one this machine belongs to."""

    benchmark: str = "smollm2-135m-news"
    site: str = ""
    nodes: str = ""
    scenario: Scenario = Scenario.SERVER
    mode: Mode = Mode.PERFORMANCE
    preset: Preset = Preset.SMOKE
    sets: tuple[str, ...] = ()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.submit",
        description="Run MLPerf Inference's LoadGen against vLLM and judge what comes out.",
        epilog="exit codes: 0 VALID, 1 INVALID or a gate failed, 2 bad input, 3 the run failed",
        parents=[options.shared("config", "site", "nodes", "set")],
    )
    unsaid = RunRequest()
    for name, kind, default, text in (
        ("scenario", Scenario, unsaid.scenario, "the load that is offered"),
        (
            "mode",
            Mode,
            unsaid.mode,
            "what is measured; all: each that applies, on one engine start",
        ),
        ("preset", Preset, unsaid.preset, "quick: ten samples; smoke: the least that is VALID"),
    ):
        parser.add_argument(
            f"--{name}",
            type=str.lower,
            # A look at the nodes alone is sut.doctor's.
            choices=[each.value for each in kind if each is not Mode.PREFLIGHT],
            help=f"{text} (default: {default})",
        )
    parser.add_argument(
        "--again", metavar="RUN_DIR", help="the plan of this run once more; says what has changed"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="follow the run to its end, or return at once (default: return, on a Slurm cluster; "
        "follow, elsewhere)",
    )
    parser.add_argument(
        "--begin", default="", metavar="TIME", help="not before, as sbatch takes it: 02:00"
    )
    parser.add_argument(
        "--dependency",
        default="",
        metavar="WHAT",
        help="as sbatch takes it: singleton, afterany:JOBID",
    )
    return parser.parse_args(argv)


def request_of(arguments: argparse.Namespace) -> RunRequest:
    """What the options ask for, and what holds where they don't say."""
    said = {
        "benchmark": arguments.config,
        "site": arguments.site,
        "nodes": arguments.nodes,
        "scenario": arguments.scenario,
        "mode": arguments.mode,
        "preset": arguments.preset,
        "sets": arguments.set,
    }
    return msgspec.convert({k: v for k, v in said.items() if v is not None}, RunRequest)


def make_plan(request: RunRequest) -> tuple[Plan, Path]:
    """The plan, and the folder its run goes into. Raises InputError."""
    where = request.site or default_site.default()
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
