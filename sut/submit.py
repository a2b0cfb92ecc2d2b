"""Submit a run: ``python -m sut.submit --scenario server``.

A benchmark and a site become a plan, the plan a run directory, the run directory a submitit job.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut import campaign_run, interrupts, messages, output
from sut.cluster.sbatch import Submission
from sut.command import as_typed, command_of_run, print_json
from sut.errors import EXIT_VALID, Errors, InputError
from sut.interrupts import Interrupt
from sut.launch import again, checks, dry_run, executor, members, notices, request, run_options
from sut.launch.finding import Finding
from sut.launch.members import Planned, announced
from sut.launch.options import find_run, given_root
from sut.machine import checkout
from sut.plan import config
from sut.plan.benchmark import Preset
from sut.plan.config import Campaign
from sut.plan.plan import OnReplicaLoss, Plan
from sut.results.length import Length
from sut.watch.follow import detached, outcome_of, wait


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    with interrupts.at_once():
        arguments = run_options.parse(argv)
    return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Plan, check and submit the runs of these options, and follow them. Returns the exit code.
    Raises SutError."""
    with interrupts.at_once():
        campaign = config.load_campaign(arguments.config) if arguments.config else None
        planned = _plan(arguments, campaign)
        campaigned = campaign_run.of(campaign, planned, arguments) if campaign else None
        if campaigned is not None:
            planned = campaigned.left
        submission = _submission(arguments)
        for each in planned:
            executor.check_submission(each.plan, submission)
        found = [checked(each) for each in planned]
        if arguments.dry_run:
            output.is_the_result()
            return dry_run.show(planned, found, arguments)
        submission = check(arguments, planned, found)
    waits = _waits(arguments, planned)
    warn_of_changes(planned)
    if campaigned is None:
        return _run(planned[0], submission, waits=waits, as_json=arguments.json)
    return campaign_run.run(campaigned, submission, waits=waits, as_json=arguments.json)


def _plan(arguments: argparse.Namespace, campaign: Campaign | None) -> list[Planned]:
    if campaign is not None:
        _refuse(arguments, ("scenario", "mode", "preset", "nodes", "again"), "a campaign")
        return members.plan(campaign, run_options.request_of(arguments))
    if arguments.start_over:
        raise InputError(
            f"{campaign_run.START_OVER} needs a campaign: every other run is a new one",
            hint=f"leave out {campaign_run.START_OVER}",
        )
    if arguments.again:
        return [_plan_again(arguments)]
    return [Planned("", *request.make_plan(run_options.request_of(arguments)))]


def _plan_again(arguments: argparse.Namespace) -> Planned:
    """The plan of an earlier run; prints what it does not fix and has changed."""
    fixed = ("scenario", "mode", "preset", "config", "site", "nodes", "set", "repeat", "sweep")
    _refuse(arguments, fixed, "--again")
    run_dir = find_run(arguments.again, arguments)
    plan, changed = again.plan_of(run_dir)
    out = sys.stderr if arguments.json else sys.stdout
    print(f"again {run_dir.root.name}: plan {plan.digest()[:12]}", file=out)
    plan = request.keeping(plan, arguments.keep_engine or 0)
    plan = msgspec.structs.replace(
        plan,
        stop_when_hopeless=arguments.stop_when_hopeless,
        on_replica_loss=OnReplicaLoss(arguments.on_replica_loss or OnReplicaLoss.FAIL),
    )
    for line in changed:
        print(f"  differs: {line}", file=out)
    notified = notices.read(run_dir)
    if arguments.notify is not None:
        notified = msgspec.structs.replace(notified, command=arguments.notify)
    return Planned("", plan, given_root(arguments.root) or run_dir.root.parent, notified)


def checked(planned: Planned) -> list[Finding]:
    """What this machine can check of a run. Prints warnings."""
    plan, run_root = planned.plan, planned.run_root
    found = checks.check(plan, run_root)
    if plan.slurm is not None:
        found.append(checks.run_length(plan, _length(plan, run_root)))
    for warning in (each.warning for each in found if each.warning):
        messages.report(f"warning: {warning}")
    return found


def _length(plan: Plan, run_root: Path) -> Length | str:
    """The expected length, or why it is not known: a login node has no C++ core to simulate it."""
    if importlib.util.find_spec("sut._core") is None:
        return "the C++ core, which simulates it, is not in this environment"
    from sut.run import length

    return length.expect(plan, run_root)


def _refuse(arguments: argparse.Namespace, names: Sequence[str], other: str) -> None:
    """Raise InputError where an option is given that would have no effect."""
    given = [f"--{name}" for name in names if getattr(arguments, name) not in (None, [])]
    if given:
        fixed_by = "the earlier plan" if other == "--again" else "its file"
        what = "it" if len(given) == 1 else "them"
        raise InputError(
            f"{', '.join(given)} cannot be combined with {other}: {fixed_by} fixes {what}",
            hint=f"leave out {', '.join(given)}",
        )


def check(
    arguments: argparse.Namespace, planned: Sequence[Planned], checked: Sequence[Sequence[Finding]]
) -> Submission:
    """How to submit the runs. Raises InputError that lists why this machine cannot."""
    submission = _submission(arguments)
    if arguments.keep_engine and any(each.plan.slurm is not None for each in planned):
        raise InputError(
            "--keep-engine has no effect on a job for one run: Slurm ends the engines with the job",
            hint="make several runs in one job: srun --nodes=1 --pty bash, and there: "
            "python -m sut.submit --set site.slurm=null --keep-engine MINUTES ...",
        )
    errors = Errors()
    for each in planned:
        try:
            executor.check(each.plan, submission)
        except InputError as error:
            errors.append(error)
    checks.once([*errors, *checks.problems(checked)]).raise_all()
    return submission


def _submission(arguments: argparse.Namespace) -> Submission:
    return Submission(begin=arguments.begin, dependency=arguments.dependency)


def warn_of_changes(planned: Sequence[Planned]) -> None:
    """Warn before an official run that could not be submitted for its source. In a container the
    source is the image's."""
    plans = [each.plan for each in planned]
    if any(plan.preset is Preset.OFFICIAL and plan.container is None for plan in plans):
        changes = checkout.changes() or []
        if changes:
            some = ", ".join(changes[:5]) + (", ..." if len(changes) > 5 else "")
            messages.report(
                f"warning: sut.package will refuse this run: the source has uncommitted changes "
                f"({some})\nhint: stop the run, commit them, and submit again: git commit -a"
            )


def _waits(arguments: argparse.Namespace, planned: Sequence[Planned]) -> bool:
    on_slurm = not planned or planned[0].plan.slurm is not None  # none: all are jobs
    if arguments.wait is False and not on_slurm and planned[0].name:
        raise InputError(
            "--no-wait cannot be used with a campaign on a single machine: this command starts "
            "each run when the one before has ended",
            hint=f"run it in the background: nohup {as_typed().replace(' --no-wait', '')} &",
        )
    return not on_slurm if arguments.wait is None else bool(arguments.wait)


def _run(planned: Planned, submission: Submission, *, waits: bool, as_json: bool) -> int:
    with Interrupt() as interrupt:
        job = members.submit(planned, submission)
        on_slurm = job.plan.slurm is not None
        if not as_json and (not waits or on_slurm):
            print(announced(job), flush=True)
        if waits or (interrupt.asked and not on_slurm):
            code = wait(job, interrupt, quietly=as_json)
        else:
            code = detached(job) if interrupt.asked else EXIT_VALID
    if as_json:
        print_json(outcome_of(job))
    return code


if __name__ == "__main__":
    sys.exit(main())
