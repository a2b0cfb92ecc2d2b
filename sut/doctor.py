"""Look at a site's nodes and run nothing: ``python -m sut.doctor --site jw``.

Submits the preflight of a run, as a job of its own, and prints what each node's checks found.
Exit codes: 0 all is well, 2 bad input, 3 something is not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sut.cluster.sbatch import Submission
from sut.command import command
from sut.launch import executor, newrun
from sut.launch.options import shared
from sut.launch.request import RunRequest, make_plan
from sut.plan.plan import Mode, Plan
from sut.results import record
from sut.results.record import NodePreflight
from sut.rundir import RunDir
from sut.units import quantity
from sut.watch.follow import follow


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    request = RunRequest(
        benchmark=options.config,
        site=options.site,
        nodes=options.nodes,
        mode=Mode.PREFLIGHT,
        sets=tuple(options.set),
    )
    plan, run_root = make_plan(request)
    executor.check(plan, Submission())
    return _look(plan, run_root)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.doctor",
        description="Check every node of a site as a run would, and start no engine.",
        epilog="exit codes: 0 all is well, 2 bad input, 3 something is not",
        parents=[shared("config", "site", "nodes", "set")],
    )
    parser.set_defaults(config=RunRequest().benchmark, site="", nodes="all")
    return parser.parse_args(argv)


def _look(plan: Plan, run_root: Path) -> int:
    run_dir = newrun.create(plan, run_root)
    job = executor.submit(plan, run_dir, Submission())
    print(
        f"job {job.job_id} looks at {quantity(len(plan.nodes), 'nodes')}; files: {run_dir}",
        flush=True,
    )
    code = follow(job, plan, run_dir)
    _show(run_dir)
    return code


def _show(run_dir: RunDir) -> None:
    if not run_dir.record.is_file():
        return
    for node in record.read(run_dir.record).preflight:
        Console().print(_table(node))


def _table(node: NodePreflight) -> Table:
    table = Table("", "check", "measured", "", title=node.node, title_justify="left", box=None)
    for check in node.checks:
        measured = "" if check.measured is None else quantity(check.measured, check.unit)
        table.add_row("ok" if check.ok else "NOT OK", check.name, measured, check.text)
    return table


if __name__ == "__main__":
    sys.exit(main())
