"""The options of a run, and the request that they make."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence

import msgspec

from sut.command import Parser, at_least
from sut.launch import engine_sweep
from sut.launch.options import RUN, add, add_runs, shared
from sut.launch.request import RunRequest
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, OnReplicaLoss

FIXED = ("config", "site", "nodes", "scenario", "mode", "preset", "set", "root")  # of a search


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    examples = (
        "--scenario server",
        "--scenario offline --mode all",
        "--set target_qps=5",
        "--sweep target_qps=5,10,20",
        "--again latest",
    )
    about = "Run LoadGen against vLLM and judge the result."
    return _parsed(parser("submit", about, examples), argv)


def parse_tune(argv: Sequence[str] | None) -> argparse.Namespace:
    about = (
        "Find the highest load at which a run is VALID, with no number from you: measure the "
        "engines, simulate the run, and confirm the result with a run at that load."
    )
    examples = (
        "--scenario server",
        "--scenario interactive --preset official",
        "--scenario offline --sweep engine.max_num_seqs=8,16,32",
    )
    options = parser("tune", about, examples)
    _add_settings(options)
    options.set_defaults(tune=True)
    arguments = _parsed(options, argv)
    if not arguments.engine_sweep and (arguments.from_run or arguments.seconds):
        options.error("--from and --seconds need --sweep engine.KEY=A,B,...")
    if arguments.engine_sweep and (arguments.repeat or arguments.resume):
        options.error("--sweep cannot be combined with --repeat or --resume")
    given = [f"--{name}" for name in FIXED if getattr(arguments, name) not in (None, [])]
    if arguments.resume and given:
        options.error(
            f"{', '.join(given)} cannot be combined with --resume: the search has its own",
            f"python -m sut.tune --resume {shlex.quote(arguments.resume)}",
        )
    if arguments.again:
        options.error(
            "--again repeats an earlier plan; a run that was tuned tunes again",
            f"python -m sut.submit --again {shlex.quote(arguments.again)}",
        )
    return arguments


def _add_settings(options: Parser) -> None:
    """The options of a search for the best engine settings."""
    group = options.add_argument_group("engine settings (docs/tuning.md)")
    group.add_argument(
        "--sweep",
        type=_setting,
        action="append",
        default=[],
        dest="engine_sweep",
        metavar="engine.KEY=A,B,...",
        help=f"find the best of these values of {' or '.join(engine_sweep.KEYS)}, each with its "
        "own start of the engines; repeatable: each combination",
    )
    add_runs(
        group,
        "--from",
        dest="from_run",
        help="simulate the values with the step times of this run, and measure only the best "
        f"{engine_sweep.NUM_BEST}",
    )
    group.add_argument(
        "--seconds",
        type=at_least(1, float),
        metavar="S",
        help="length of the tests of the first round; each round doubles it (default: "
        f"{engine_sweep.TEST_S:g})",
    )
    group.add_argument("--resume", metavar="FOLDER", help="continue an interrupted search")


def _setting(text: str) -> engine_sweep.Swept:
    if text.partition("=")[0].strip() == "target_qps":
        raise argparse.ArgumentTypeError(
            f"{text}: cannot be combined with sut.tune, which searches for target_qps"
        )
    return engine_sweep.parse(text)


def _parsed(options: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    arguments = options.parse(argv)
    for name in ("--scenario", "--mode", "--preset"):
        if options.num_given(name) > 1:
            options.error(
                f"argument {name}: given twice",
                "submit each by itself, or write a campaign: docs/report.md",
            )
    if arguments.full and not arguments.dry_run:
        options.error("--full needs --dry-run", options.with_words("--dry-run"))
    return arguments


def parser(command: str, about: str, examples: Sequence[str]) -> Parser:
    """The options of a run, for the command ``sut.COMMAND``."""
    parser = Parser(
        prog=f"python -m sut.{command}",
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
        "--stop-when-hopeless",
        action="store_true",
        help="end a performance phase once more queries are over a limit on TTFT or TPOT than "
        "LoadGen allows: it cannot be VALID",
    )
    parser.add_argument(
        "--repeat",
        type=at_least(1),
        metavar="N",
        help="run N performance tests on one start of the engines, and show their mean and spread",
    )
    if command != "tune":  # it has its own
        parser.add_argument(
            "--sweep",
            type=_loads,
            metavar="target_qps=A,B,...",
            help="run a performance test at each of these loads on one start of the engines, and "
            "show latencies, throughput and goodput against the load",
        )
    parser.add_argument(
        "--on-replica-loss",
        type=str.lower,
        choices=[each.value for each in OnReplicaLoss],
        help="fail: a replica that dies, stalls or disconnects ends the run (default); continue: "
        "the others finish the run, which is then INVALID; restart: the same, and the lost engine "
        "is started again and rejoins them",
    )
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="start all runs of a campaign; default: those that an earlier command left",
    )
    waits = parser.add_mutually_exclusive_group()
    waits.add_argument(
        "--wait",
        action="store_true",
        default=None,
        help="follow the run to its end (default on a single machine)",
    )
    waits.add_argument(
        "--no-wait",
        dest="wait",
        action="store_false",
        default=None,
        help="return at once (default on a Slurm cluster)",
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


def _loads(text: str) -> tuple[float, ...]:
    """The loads of ``--sweep target_qps=2,4,8``, in ascending order."""
    key, equals, values = text.partition("=")
    if not equals or key.strip() != "target_qps":
        raise argparse.ArgumentTypeError(
            f"{text}: only target_qps can be swept, e.g. target_qps=2,4,8; to compare engine "
            "settings: python -m sut.tune --sweep engine.KEY=A,B,... (docs/tuning.md)"
        )
    try:
        loads = sorted(map(float, values.split(",")))
    except ValueError:
        loads = []
    if not all(0 < load < math.inf for load in loads) or len(set(loads)) < max(2, len(loads)):
        raise argparse.ArgumentTypeError(
            f"{text}: expected two or more different loads above 0, e.g. target_qps=2,4,8"
        )
    return tuple(loads)


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
        "stop_when_hopeless": getattr(arguments, "stop_when_hopeless", None),
        "on_replica_loss": getattr(arguments, "on_replica_loss", None),
        "repeat": getattr(arguments, "repeat", None),
        "sweep": getattr(arguments, "sweep", None),
        "notify": getattr(arguments, "notify", None),
        "tune": getattr(arguments, "tune", None),
    }
    return msgspec.convert({k: v for k, v in given.items() if v is not None}, RunRequest)
