"""``python -m sut.verdict LOGDIR [--json]``: the verdict on any LoadGen log folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.errors import EXIT_BAD_INPUT, EXIT_INVALID, EXIT_VALID, InputError
from sut.plan import Plan, read_plan
from sut.results import mllog
from sut.results.verdict import Verdict, judge_performance
from sut.rundir import RunDir


def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict; the exit code is 0 VALID, 1 INVALID, 2 no verdict possible."""
    options = _options(argv)
    of_run = RunDir(options.log_dir).loadgen("performance")
    log_dir = of_run if of_run.is_dir() else options.log_dir
    try:
        log = mllog.read(log_dir)
        plan = _plan_of(log_dir)
        verdict = judge_performance(log, official=plan.official if plan else None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if options.json:
        print(json.dumps(msgspec.to_builtins(verdict), indent=2))
    else:
        print(_text(verdict, log, plan))
    return EXIT_VALID if verdict.verdict == "VALID" else EXIT_INVALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.verdict",
        description="Say whether a LoadGen performance test is VALID, and if not, exactly why.",
        epilog="exit codes: 0 VALID, 1 INVALID, 2 the log can't be judged",
    )
    parser.add_argument(
        "log_dir", type=Path, metavar="LOGDIR", help="folder of mlperf_log_*, or of a run"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(argv)


def _plan_of(log_dir: Path) -> Plan | None:
    """The plan of the run these logs lie in, if they do: RUN_DIR/loadgen/PHASE."""
    folder = (log_dir if log_dir.is_dir() else log_dir.parent).resolve()
    run_dir = RunDir(folder.parent.parent)
    if run_dir.loadgen(folder.name) != folder or not run_dir.plan.is_file():
        return None
    try:
        return read_plan(run_dir.plan)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{run_dir.plan}: not a plan of this version: {error}") from None


def _text(verdict: Verdict, log: mllog.DetailLog, plan: Plan | None) -> str:
    version = str(log.values.get("loadgen_version", "")).partition(" ")[0] or "of unknown version"
    width = max(len(check.code) for check in verdict.checks)
    lines = [
        f"{verdict.verdict}  ({log.scenario}; LoadGen {version} says {verdict.loadgen_validity})",
        "",
        *(
            f"  {'met    ' if check.met else 'NOT met'}  {check.code:<{width}}  {check.text}"
            for check in verdict.checks
        ),
    ]
    if plan and not plan.official:
        lines += ["", "Not official because:", *(f"  - {why}" for why in plan.not_official_because)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
