"""Submit the runs of a campaign, or those that an earlier command left."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from sut import messages
from sut.campaign import main as compare
from sut.cluster.sbatch import Submission
from sut.command import as_typed, print_json
from sut.errors import EXIT_VALID, quoted
from sut.interrupts import Interrupt
from sut.launch import members, unfinished
from sut.launch.members import Job, Planned
from sut.launch.unfinished import Unfinished
from sut.plan.config import Campaign
from sut.units import quantity
from sut.watch.follow import EXIT_DETACHED, outcome_of, wait

START_OVER = "--start-over"


class Campaigned(NamedTuple):
    """A campaign with all of its runs. ``earlier`` are those that need not start again, in
    the folder of an earlier command."""

    campaign: Campaign
    planned: list[Planned]
    earlier: Unfinished | None

    @property
    def left(self) -> list[Planned]:
        known = self.earlier.runs if self.earlier else {}
        return [each for each in self.planned if each.name not in known]


def of(campaign: Campaign, planned: list[Planned], arguments: argparse.Namespace) -> Campaigned:
    """Say on standard error which runs an earlier command left. Raises InputError."""
    earlier = None if arguments.start_over else unfinished.find(campaign, planned)
    if earlier is not None:
        left = len(planned) - len(earlier.runs)
        what = f"{left} of {quantity(len(planned), 'runs')} left"
        print(f"continuing campaign {earlier.folder}: {what}", file=sys.stderr)
        for name, each in earlier.runs.items():
            print(f"  skipped  {name}: {each.word}  {each.member.run_dir}", file=sys.stderr)
        messages.report(f"hint: to start all of its runs again: {as_typed()} {START_OVER}")
    return Campaigned(campaign, planned, earlier)


def run(found: Campaigned, submission: Submission, *, waits: bool, as_json: bool) -> int:
    """Start all jobs in Slurm, but one run after the other on this machine: at the same time they
    would slow each other down."""
    campaign, planned, earlier = found
    folder = earlier.folder if earlier else members.new_folder(campaign, planned[0].run_root)
    on_slurm = planned[0].plan.slurm is not None
    notes = sys.stderr if as_json else sys.stdout
    before = earlier.runs if earlier else {}
    known = {name: each.member for name, each in before.items()}
    jobs = {each.name: before[each.name].job(each) for each in planned if each.name in before}
    with Interrupt() as interrupt:
        for name, job in members.submit_all(campaign, folder, planned, submission, known):
            jobs[name] = job
            print(members.announced(job, name), file=notes, flush=True)
            if not on_slurm:
                wait(job, interrupt, quietly=as_json)
            if interrupt.asked:
                _print_rest(jobs, planned)
                break
        if on_slurm or interrupt.asked:
            again = f"python -m sut.campaign {quoted(folder)}"
            print(f"compare the runs when they have finished: {again}", file=notes, flush=True)
        for job in jobs.values() if waits and on_slurm else ():
            if not interrupt.asked:
                wait(job, interrupt, quietly=as_json)
        interrupted = interrupt.asked
    if as_json:
        in_order = [each.name for each in planned if each.name in jobs]
        runs = [outcome_of(jobs[name], name) for name in in_order]
        print_json({"campaign": campaign.name, "folder": str(folder), "runs": runs})
    if interrupted:
        return EXIT_DETACHED
    with contextlib.redirect_stdout(notes):
        return compare([str(folder)]) if waits else EXIT_VALID


def _print_rest(jobs: dict[str, Job], planned: Sequence[Planned]) -> None:
    """What an interrupted campaign leaves, and how to go on."""
    text = f"stopped: {len(jobs)} of {quantity(len(planned), 'runs')} started"
    slurm = planned[0].plan.slurm
    if slurm is not None:
        names = " ".join(job.submitted.job_id for job in jobs.values())
        if slurm.clusters:
            names = f"--clusters={slurm.clusters} {names}"
        text += f"; to cancel the submitted jobs: scancel {names}"
    if left := "; ".join(each.name for each in planned if each.name not in jobs):
        text += f"; not started: {left}"
    go_on = as_typed().replace(f" {START_OVER}", "")
    messages.report(f"{text}\nhint: to run what is left: {go_on}")
