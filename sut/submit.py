"""Submit a run: ``python -m sut.submit --scenario server``.

A benchmark and a site become a plan, the plan a run directory, the run directory a submitit job.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console

from sut import interrupts, output
from sut.campaign import main as compare
from sut.cluster.sbatch import Submission
from sut.command import as_typed, command_of_run, print_json
from sut.errors import EXIT_FAILED, EXIT_VALID, Errors, InputError
from sut.interrupts import Interrupt
from sut.launch import again, checks, dry_run, executor, members, notices, request, run_options
from sut.launch.finding import Finding
from sut.launch.members import Job, Planned
from sut.launch.options import find_run, given_root
from sut.machine import checkout
from sut.plan import config
from sut.plan.benchmark import Preset
from sut.plan.config import Campaign
from sut.plan.plan import OnReplicaLoss, Plan
from sut.units import quantity
from sut.watch import notify, outcome
from sut.watch.follow import EXIT_DETACHED, close_if_unrecorded, detached, follow, until_ended
from sut.watch.outcome import Outcome


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
        checked = [checks.check(each.plan, each.run_root) for each in planned]
        if arguments.dry_run:
            output.is_the_result()
            return dry_run.show(planned, checked, arguments)
        submission = _check(arguments, planned, checked)
    waits = _waits(arguments, planned)
    warn_of_changes(planned)
    if campaign is None:
        return _run(planned[0], submission, waits=waits, as_json=arguments.json)
    return _run_campaign(campaign, planned, submission, waits=waits, as_json=arguments.json)


def _plan(arguments: argparse.Namespace, campaign: Campaign | None) -> list[Planned]:
    if campaign is not None:
        _refuse(arguments, ("scenario", "mode", "preset", "nodes", "again"), "a campaign")
        return members.plan(campaign, run_options.request_of(arguments))
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


def _check(
    arguments: argparse.Namespace, planned: Sequence[Planned], checked: Sequence[Sequence[Finding]]
) -> Submission:
    """How to submit the runs. Raises InputError that lists why this machine cannot."""
    submission = Submission(begin=arguments.begin, dependency=arguments.dependency)
    if arguments.keep_engine and planned[0].plan.slurm is not None:
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


def warn_of_changes(planned: Sequence[Planned]) -> None:
    """Warn before an official run that could not be submitted for its source. In a container the
    source is the image's."""
    plans = [each.plan for each in planned]
    if any(plan.preset is Preset.OFFICIAL and plan.container is None for plan in plans):
        changes = checkout.changes() or []
        if changes:
            some = ", ".join(changes[:5]) + (", ..." if len(changes) > 5 else "")
            print(
                f"warning: sut.package will refuse this run: the source has uncommitted changes "
                f"({some})\nhint: stop the run, commit them, and submit again: git commit -a",
                file=sys.stderr,
            )


def _waits(arguments: argparse.Namespace, planned: Sequence[Planned]) -> bool:
    on_slurm = planned[0].plan.slurm is not None
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
            print(_submitted(job), flush=True)
        if waits or (interrupt.asked and not on_slurm):
            code = _wait(job, interrupt, quietly=as_json)
        else:
            code = detached(job) if interrupt.asked else EXIT_VALID
    if as_json:
        print_json(_outcome(job))
    return code


def _run_campaign(
    campaign: Campaign,
    planned: Sequence[Planned],
    submission: Submission,
    *,
    waits: bool,
    as_json: bool,
) -> int:
    """Start all jobs in Slurm, but one run after the other on this machine: at the same time they
    would slow each other down."""
    folder = members.new_folder(campaign, planned[0].run_root)
    on_slurm = planned[0].plan.slurm is not None
    notes = sys.stderr if as_json else sys.stdout
    jobs = []
    with Interrupt() as interrupt:
        for job in members.submit_all(campaign, folder, planned, submission):
            jobs.append(job)
            print(_submitted(job), file=notes, flush=True)
            if not on_slurm:
                _wait(job, interrupt, quietly=as_json)
            if interrupt.asked:
                _print_rest(jobs, planned)
                break
        if on_slurm or interrupt.asked:
            again = f"python -m sut.campaign {folder}"
            print(f"compare the runs when they have finished: {again}", file=notes, flush=True)
        for job in jobs if waits and on_slurm else ():
            if not interrupt.asked:
                _wait(job, interrupt, quietly=as_json)
        interrupted = interrupt.asked
    if as_json:
        runs = [_outcome(job, each.name) for job, each in zip(jobs, planned, strict=False)]
        print_json({"campaign": campaign.name, "folder": str(folder), "runs": runs})
    if interrupted:
        return EXIT_DETACHED
    with contextlib.redirect_stdout(notes):
        return compare([str(folder)]) if waits else EXIT_VALID


def _wait(job: Job, interrupt: Interrupt, *, quietly: bool) -> int:
    """Follow a run to its end. Returns its exit code. Quietly: progress on standard error, and no
    result."""
    if not quietly:
        return follow(job, interrupt)
    if not until_ended(job, interrupt, Console(stderr=True)):
        return EXIT_DETACHED
    close_if_unrecorded(job)
    notify.warn_of_failure(job.run_dir)
    found = _outcome(job).result
    return EXIT_FAILED if found is None else found.exit_code


def _outcome(job: Job, name: str = "") -> Outcome:
    return outcome.of(job.run_dir, job.submitted.job_id, job.plan, name)


def _print_rest(jobs: Sequence[Job], planned: Sequence[Planned]) -> None:
    """What an interrupted campaign leaves, and how to go on."""
    text = f"stopped: {len(jobs)} of {quantity(len(planned), 'runs')} started"
    if jobs[0].plan.slurm is not None:
        names = " ".join(job.submitted.job_id for job in jobs)
        if cluster := jobs[0].plan.slurm.clusters:
            names = f"--clusters={cluster} {names}"
        text += f"; to cancel the submitted jobs: scancel {names}"
    left = "; ".join(each.name for each in planned[len(jobs) :])
    if left:
        text += f"; not started: {left}"
    print(f"{text}\nhint: to start the campaign again: {as_typed()}", file=sys.stderr)


def _submitted(job: Job) -> str:
    """Where the run is, and how to follow it."""
    job_id, run_dir = job.submitted.job_id, job.run_dir
    here = job.plan.slurm is None
    begun, run = ("started", run_dir) if here else (f"job {job_id} submitted", job_id)
    return (
        f"{begun}: {job.plan.benchmark}, {job.plan.scenario}, {_where(job.plan)}\n"
        f"  files   {run_dir}\n"
        f"  watch   python -m sut.watch {run}\n"
        f"  cancel  python -m sut.cancel {run}"
    )


def _where(plan: Plan) -> str:
    if plan.slurm is None:
        return f"{quantity(len(plan.replicas), 'replicas')} on this machine"
    named = plan.nodes_text() and f" ({plan.nodes_text()})"
    nodes = quantity(len(plan.nodes), "nodes")
    return f"{quantity(len(plan.replicas), 'replicas')} on {nodes}{named}"


if __name__ == "__main__":
    sys.exit(main())
