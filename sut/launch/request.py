"""From a user's options to a plan: reads the configs and this machine, resolves."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.command import Parser, at_least
from sut.errors import InputError
from sut.inputs import model
from sut.launch import default_site
from sut.launch.notices import NOBODY, Notices
from sut.launch.options import DEFAULT_BENCHMARK, RUN, add, add_runs, given_root, shared
from sut.plan import config, fit, keys
from sut.plan.benchmark import Benchmark, Preset, Scenario
from sut.plan.document import keys_of
from sut.plan.plan import Mode, Plan
from sut.plan.resolve import resolve
from sut.plan.site import Site
from sut.values import NonNegativeInt, Struct


class RunRequest(Struct, frozen=True, kw_only=True):
    """One run, as the user asks for it. An empty ``site`` means the default one; an empty ``root``,
    the run root of SUT_RUN_ROOT or of the site."""

    benchmark: str = DEFAULT_BENCHMARK
    site: str = ""
    nodes: str = ""
    scenario: Scenario = Scenario.SERVER
    mode: Mode = Mode.PERFORMANCE
    preset: Preset = Preset.SMOKE
    sets: tuple[str, ...] = ()
    root: str = ""
    keep_engine_min: NonNegativeInt = 0
    notify: str | None = None  # None: the site's


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    examples = (
        "--scenario server",
        "--scenario offline --mode all",
        "--set target_qps=5",
        "--again latest",
    )
    about = "Run LoadGen against vLLM and judge the result."
    options = parser("submit", about, examples)
    arguments = options.parse(argv)
    if arguments.full and not arguments.dry_run:
        options.error("--full needs --dry-run")
    return arguments


def parser(name: str, about: str, examples: Sequence[str]) -> Parser:
    """The options of a run, for the command ``name``."""
    parser = Parser(
        prog=f"python -m sut.{name}",
        description=about,
        epilog="exit codes: 0 VALID, 1 INVALID or an accuracy gate failed, 2 bad input, 3 the run "
        "failed",
        examples=examples,
        parents=[shared("config", "site", "nodes", "set")],
    )
    defaults = RunRequest()
    for name, kind, default, text in (
        ("scenario", Scenario, defaults.scenario, "LoadGen's scenario"),
        ("mode", Mode, defaults.mode, "which tests to run; all: each that applies"),
        (
            "preset",
            Preset,
            defaults.preset,
            "quick: ten samples, INVALID; smoke: the least that can be VALID; official: "
            "mlperf.conf's settings",
        ),
    ):
        parser.add_argument(
            f"--{name}",
            type=str.lower,
            choices=[each.value for each in kind if each is not Mode.PREFLIGHT],  # sut.doctor's
            help=f"{text} (default: {default})",
        )
    add(
        parser,
        "root",
        help="folder for the run (default: $SUT_RUN_ROOT, or the site's run_root)",
    )
    add_runs(
        parser, "--again", help=f"run the plan of an earlier run again; print what changed ({RUN})"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print and check what would run; start nothing"
    )
    parser.add_argument(
        "--full", action="store_true", help="with --dry-run: the whole plan and LoadGen's user.conf"
    )
    parser.add_argument(
        "--keep-engine",
        type=at_least(1),
        metavar="MINUTES",
        help="leave the engines running for the next run with the same engine settings, and use "
        "those that an earlier run has left; they end after MINUTES without use (see sut engines)",
    )
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="follow the run to its end, or return at once (default: follow, but return on a "
        "Slurm cluster)",
    )
    add(
        parser,
        "json",
        help="print one JSON object: what was submitted and, if the command follows it, the "
        "result; progress goes to standard error; with --dry-run what would run",
    )
    parser.add_argument(
        "--notify",
        metavar="COMMAND",
        help="shell command that runs when the run has ended, however it ended, for at most 30 s "
        "(default: the site's notify)",
    )
    parser.add_argument(
        "--begin", default="", metavar="TIME", help="earliest start, as in sbatch: 02:00"
    )
    parser.add_argument(
        "--dependency",
        default="",
        metavar="WHAT",
        help="as in sbatch: singleton, afterany:JOBID",
    )
    return parser


def request_of(arguments: argparse.Namespace) -> RunRequest:
    """The options that were given, and the defaults of the others."""
    given = {
        "benchmark": arguments.config,
        "site": arguments.site,
        "nodes": arguments.nodes,
        "scenario": arguments.scenario,
        "mode": arguments.mode,
        "preset": arguments.preset,
        "sets": arguments.set,
        "root": arguments.root and str(arguments.root),
        "keep_engine_min": arguments.keep_engine,
        "notify": getattr(arguments, "notify", None),
    }
    return msgspec.convert({k: v for k, v in given.items() if v is not None}, RunRequest)


def make_plan(request: RunRequest) -> tuple[Plan, Path, Notices]:
    """The plan, the folder for its run directory, and who is notified. Raises InputError."""
    where = request.site or default_site.default()
    sets = [keys.full(change, request.scenario) for change in request.sets]
    benchmark, site = config.load(request.benchmark, where, sets)
    plan = resolve(
        benchmark,
        site,
        scenario=request.scenario,
        mode=request.mode,
        preset=request.preset,
        usable_cpus=sorted(os.sched_getaffinity(0)),
        nodes=request.nodes,
        model_size=_model_size(benchmark, site),
        sets=sets,
    )
    kept = keeping(plan, request.keep_engine_min)
    return kept, _run_root(request, sets, site), _notices(request, site)


def _notices(request: RunRequest, site: Site) -> Notices:
    if request.mode is Mode.PREFLIGHT:  # sut.doctor shows its result itself
        return NOBODY
    return Notices(
        command=site.notify if request.notify is None else request.notify,
        mail_type=site.slurm.mail_type if site.slurm else "",
        mail_user=site.slurm.mail_user if site.slurm else "",
    )


def _run_root(request: RunRequest, sets: Sequence[str], site: Site) -> Path:
    """The folder for the run: --root, --set site.run_root, SUT_RUN_ROOT, or the site's."""
    if not request.root and any(keys_of(each) == ["site", "run_root"] for each in sets):
        return Path(site.run_root)
    return given_root(request.root) or Path(site.run_root)


def _model_size(benchmark: Benchmark, site: Site) -> fit.ModelSize | None:
    """None if this machine cannot read the model."""
    if benchmark.model.embedded:
        return model.EMBEDDED_SIZE
    path = site.models.get(benchmark.model.name, "")
    return fit.model_size(Path(path)) if path else None


def keeping(plan: Plan, minutes: int) -> Plan:
    """The plan, with its engines kept for ``minutes`` after its run. Raises InputError."""
    why = ""
    if plan.container is not None:
        why = f"the container of site {plan.site} ends its engines with each run"
    elif len(plan.nodes) > 1:
        why = f"it works on one node, and the plan has {len(plan.nodes)}"
    if minutes and why:
        raise InputError(
            f"--keep-engine cannot be used here: {why}",
            hint="leave out --keep-engine, or use one node without a container",
        )
    return msgspec.structs.replace(plan, keep_engine_min=minutes)
