"""Submit a run: ``python -m sut.submit --scenario server``.

Config and site become a plan, the plan a run directory, the run directory a submitit job. Exit
codes: 0 VALID, 1 ran but INVALID or failed its gate, 2 bad input, 3 the run failed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sut import config, job
from sut.errors import EXIT_VALID, InputError, SutError
from sut.follow import follow
from sut.plan import Device, Mode, Plan, Preset, Scenario
from sut.resolve import resolve
from sut.rundir import RunDir, write_atomic

FOREVER_MIN = 60 * 24 * 365  # submitit's local executor ends a job after two minutes unless told


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        plan, run_root = make_plan(arguments)
        if arguments.dry_run:
            print(describe(plan), end="")
            return EXIT_VALID
        run_dir = create_run_dir(plan, run_root)
        submitted = submit(plan, run_dir)
        if arguments.wait:
            return follow(submitted, plan, run_dir)
        print(f"job {submitted.job_id} runs in {run_dir}\nfollow it:  tail -f {run_dir.progress}")
    except SutError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_VALID


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sut submit",
        description="Run MLPerf Inference's LoadGen against vLLM and judge what comes out.",
        epilog="exit codes: 0 VALID, 1 INVALID or a gate failed, 2 bad input, 3 the run failed",
    )
    for name, kind, default, text in (
        ("scenario", Scenario, Scenario.SERVER, "the load that is offered"),
        ("mode", Mode, Mode.PERFORMANCE, "what is measured; all: both, on one engine start"),
        ("preset", Preset, Preset.SMOKE, "quick: ten samples; smoke: the least that is VALID"),
    ):
        parser.add_argument(
            f"--{name}",
            type=str.lower,
            choices=[each.value for each in kind],
            default=default.value,
            help=f"{text} (default: {default})",
        )
    parser.add_argument(
        "--config",
        default="smollm2-135m-news",
        metavar="NAME|FILE",
        help="benchmark, in configs/benchmarks or a file (default: %(default)s)",
    )
    parser.add_argument(
        "--site",
        default="local",
        metavar="NAME|FILE",
        help="where it runs, in configs/sites or a file (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the benchmark, or of the site (site.KEY=VALUE); repeatable",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="follow the run to its end, or return at once (default: --wait)",
    )
    return parser.parse_args(argv)


def make_plan(arguments: argparse.Namespace) -> tuple[Plan, Path]:
    """The plan, and the folder its run goes into. Raises InputError."""
    benchmark, site = config.load(arguments.config, arguments.site, arguments.set)
    plan = resolve(
        benchmark,
        site,
        scenario=Scenario(arguments.scenario),
        mode=Mode(arguments.mode),
        preset=Preset(arguments.preset),
        usable_cpus=sorted(os.sched_getaffinity(0)),
        sets=arguments.set,
    )
    return plan, Path(site.run_root).expanduser()


def describe(plan: Plan) -> str:
    """The plan and LoadGen's user.conf, for reading."""
    text = msgspec.yaml.encode(plan, order="sorted").decode()
    return f"{text}\n# user.conf\n{plan.user_conf()}"


def create_run_dir(plan: Plan, run_root: Path) -> RunDir:
    """A new folder under ``run_root`` with the plan in it; ``latest`` there points at it.

    Raises InputError where that can't be written.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{plan.benchmark}-{plan.scenario}-{plan.preset}"
    try:
        run_dir = RunDir(_new_folder(run_root, name))
        run_dir.slurm.mkdir()
        run_dir.logs.mkdir()
        write_atomic(run_dir.user_conf, plan.user_conf())
        write_atomic(run_dir.plan, msgspec.json.format(msgspec.json.encode(plan), indent=2))
        _point_latest_at(run_dir)
    except OSError as error:
        raise InputError(
            f"{error.filename or run_root}: {error.strerror}. Runs are kept in {run_root}, which "
            "must be writable and have room; another: --set site.run_root=/path"
        ) from None
    return run_dir


def _new_folder(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{root}: a thousand runs are called {name}")


def _point_latest_at(run_dir: RunDir) -> None:
    """Make the symlink, or replace what is there in one step."""
    temporary = run_dir.root.parent / f".latest-{run_dir.root.name}"
    temporary.symlink_to(run_dir.root.name)
    temporary.replace(run_dir.root.parent / "latest")


def submit(plan: Plan, run_dir: RunDir) -> Any:
    """Hand the run to submitit's local executor and return its job. Raises SutError."""
    import submitit

    executor = submitit.LocalExecutor(folder=run_dir.slurm)
    log = shlex.quote(str(run_dir.slurm / "controller.log"))
    executor.update_parameters(
        timeout_min=FOREVER_MIN,
        stderr_to_stdout=True,
        # The job is not the terminal's: it outlives it, holds none of its pipes, and a Ctrl-C
        # there reaches only who follows.
        setup=["trap '' INT HUP", f"exec </dev/null >>{log} 2>&1"],
        **_gpus(plan),
    )
    try:
        return executor.submit(job.launch, str(run_dir))
    except OSError as error:
        raise SutError(f"{error.filename or run_dir}: {error.strerror}", code="submit") from None


def _gpus(plan: Plan) -> dict[str, Any]:
    """submitit hides every GPU from a local job that asks for none."""
    if plan.device is not Device.CUDA:
        return {}
    count = sum(node.gpus for node in plan.nodes)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if all(gpu.isdigit() for gpu in visible):
        if len(visible) < count:
            raise InputError(
                f"{count} GPUs are needed and CUDA_VISIBLE_DEVICES shows {len(visible)}"
            )
        return {"gpus_per_node": count, "visible_gpus": [int(gpu) for gpu in visible]}
    return {"gpus_per_node": count}


if __name__ == "__main__":
    sys.exit(main())
