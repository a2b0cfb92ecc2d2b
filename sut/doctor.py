"""Check the nodes of a site: ``python -m sut.doctor --site jw``.

Submits the preflight of a run as a job and prints the result of each check on each node. With
``--gpu`` it runs the commands of docs/gpu.md on this machine instead.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

from rich.table import Table

from sut import messages
from sut.cluster import allocation, slurm
from sut.cluster.sbatch import Submission
from sut.command import Parser, command
from sut.errors import EXIT_FAILED, EXIT_VALID
from sut.interrupts import Interrupt
from sut.launch import checks, executor, members
from sut.launch.members import Planned
from sut.launch.options import DEFAULT_BENCHMARK, RUN_ROOT, add, shared
from sut.launch.request import make_plan
from sut.launch.run_options import request_of
from sut.plan import config
from sut.plan.plan import Mode
from sut.report.table import table
from sut.results import record
from sut.results.record import NodePreflight
from sut.rundir import RunDir
from sut.serving import first_hour
from sut.units import quantity
from sut.watch.follow import follow
from sut.watch.screen import print_once

_WORDS = {True: "ok", False: "NOT OK", None: "-"}


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    if options.gpu:
        return _first_hour(options)
    planned = Planned("", *make_plan(request_of(options)))
    executor.check(planned.plan, Submission())
    checks.problems([checks.check(planned.plan, planned.run_root)]).raise_all()
    with Interrupt() as interrupt:
        job = members.submit(planned, Submission())
        checking = "checking this machine"
        if job.plan.slurm is not None:
            num_nodes = quantity(len(job.plan.nodes), "nodes")
            checking = f"job {job.submitted.job_id} checks {num_nodes}"
        print(f"{checking}: {job.run_dir}", flush=True)
        code = follow(job, interrupt)
    _show(job.run_dir)
    return code


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.doctor",
        description="Check every node of a site as a run does before it measures. Starts no "
        "engine.",
        epilog="exit codes: 0 all checks passed, 2 bad input, 3 a check failed",
        examples=("--site jw", "--site jw --nodes jw2", "--gpu"),
        parents=[shared("site", "set")],
    )
    text = f"benchmark to check the nodes for (default: {DEFAULT_BENCHMARK})"
    add(parser, "config", help=text)
    text = "nodes to check: a number, a hostlist, or all (default: all)"
    add(parser, "nodes", default="all", help=text)
    text = "run the commands for the first hour on a GPU node (docs/gpu.md) on this machine; with "
    text += "--site also in its container"
    parser.add_argument("--gpu", action="store_true", help=text)
    add(parser, "root", help=f"folder for the run (default: ${RUN_ROOT}, or the site's run_root)")
    parser.set_defaults(scenario=None, preset=None, mode=str(Mode.PREFLIGHT), keep_engine=None)
    return parser.parse(argv)


def _first_hour(options: argparse.Namespace) -> int:
    image = ""
    if options.site:
        _, site = config.load(options.config or DEFAULT_BENCHMARK, options.site, options.set)
        image = site.container.image if site.container else ""
    failed = False
    for found in first_hour.run(image):
        failed |= found.ok is False
        print(f"{_WORDS[found.ok]:6}  {found.command}")
        print(textwrap.indent(found.text, " " * 8), flush=True)
    print(f"{_WORDS[None]:6}  {first_hour.by_hand(options.site or '')}")
    print(" " * 8 + "by hand: it starts an engine (docs/gpu.md)")
    if failed and slurm.is_here() and not allocation.of_process().job_id:
        messages.report("hint: on a GPU node: srun --gres=gpu:1 python -m sut.doctor --gpu")
    return EXIT_FAILED if failed else EXIT_VALID


def _show(run_dir: RunDir) -> None:
    if not run_dir.record.is_file():
        return
    for node in record.read(run_dir.record).preflight:
        print_once(_table(node))


def _table(node: NodePreflight) -> Table:
    rows = [
        (
            _WORDS[check.ok],
            check.name,
            "" if check.measured is None else quantity(check.measured, check.unit),
            check.text,
        )
        for check in node.checks
    ]
    return table(("", "check", "measured", ""), rows, title=node.node)


if __name__ == "__main__":
    sys.exit(main())
