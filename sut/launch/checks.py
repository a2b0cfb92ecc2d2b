"""What this machine can tell about a plan before it is submitted.

Every check reads only. A question that this machine cannot answer, e.g. about a path that exists
only on compute nodes, is no error: preflight asks it again on the nodes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sut.cluster import limits, partitions, slurm
from sut.cluster.partitions import Partition
from sut.cluster.sbatch import Submission
from sut.errors import Errors, InputError
from sut.launch import executor, path_checks, plan_words
from sut.launch.finding import Finding
from sut.plan.hostlist import compact
from sut.plan.plan import Plan
from sut.plan.site import Device
from sut.results import length
from sut.results.length import Length


def check(plan: Plan, run_root: Path) -> list[Finding]:
    """The checks of a plan whose run directory will be created in ``run_root``."""
    if plan.slurm is not None and not slurm.is_here():
        text = (
            f"nothing was checked: this is not a login node of site {plan.site} (sbatch was not "
            "found); repeat the dry run there"
        )
        return [Finding("cluster", text, made=False)]
    paths = path_checks.check(plan, run_root)
    if plan.slurm is None:
        return [_machine(plan), *paths]
    return [*paths, *_of_slurm(plan)]


def problems(planned: Sequence[Sequence[Finding]]) -> Errors:
    """Every problem of some plans once: the runs of a campaign share most of them."""
    return once(problem for found in planned for each in found for problem in each.problems)


def once(errors: Iterable[InputError]) -> Errors:
    return Errors({str(error): error for error in errors}.values())


def run_length(plan: Plan, expected: Length | str) -> Finding:
    """Whether the wall limit is enough for the length, which is the reason where it is not known.
    A run that certainly exceeds it is a problem, one that is expected to a warning."""
    assert plan.slurm is not None
    if isinstance(expected, str):
        return Finding("length", f"not checked: {expected}", made=False)
    made = Finding("length", f"{_length_text(plan, expected)}; {expected.source}")
    limit_s = length.limit_s(plan)
    if expected.total_s <= limit_s:
        return made
    text = (
        f"the run is expected to take {_length_text(plan, expected)}: it would be ended after "
        f"{plan_words.duration(limit_s)} ({expected.source})"
    )
    hint = (
        f"allow more time: --set site.slurm.time_min={length.enough_min(plan, expected)}; or "
        "choose more nodes, a smaller --preset or a target_qps that the engines can keep up with"
    )
    if expected.shortest_s is not None and expected.shortest_s > limit_s:
        least = plan_words.duration(expected.shortest_s)
        made.problems.add(f"{text}; its tests take at least {least} {expected.fastest}", hint=hint)
    else:
        made.warning = f"{text}\nhint: {hint}"
    return made


def _length_text(plan: Plan, expected: Length) -> str:
    assert plan.slurm is not None
    about = f"about {plan_words.duration(expected.tests_s)} in its tests"
    if expected.load:
        about += f" (simulated at {expected.load})"
    if expected.startup_s is None:
        about += ", loading and warm-up on top"
    else:
        about += f" and {plan_words.duration(expected.startup_s)} besides, as in earlier runs"
    return f"{about}, with a wall limit of {plan.slurm.time_min:,} min"


def _machine(plan: Plan) -> Finding:
    parts = [f"runs {sys.executable}"] if plan.container is None else []
    parts += ["its GPUs are checked when the run starts"] if plan.device is Device.CUDA else []
    made = Finding("machine", "; ".join(parts))
    try:
        executor.check(plan, Submission())
    except InputError as error:
        made.problems.append(error)
    return made


def _of_slurm(plan: Plan) -> Iterator[Finding]:
    assert plan.slurm is not None
    known = partitions.known(plan.slurm.clusters)
    if not known:
        yield Finding("Slurm", "not checked: scontrol does not answer", made=False)
        return
    found = partitions.chosen(plan.slurm, known)
    yield _partition(plan, found, known)
    if found is not None:
        yield _nodes(plan, found)
    if plan.slurm.sbatch.get("reservation"):
        yield _reservation(plan, partitions.reservations(plan.slurm.clusters))
    yield _account(plan)


def _partition(plan: Plan, found: Partition | None, known: Sequence[Partition]) -> Finding:
    made = Finding("partition")
    if found is not None and plan.slurm is not None:
        limit = found.max_time_min
        most = "no time limit" if limit is None else f"at most {limit:,} min"
        made.text = f"{found.name}: {most}; the job asks for {plan.slurm.time_min:,} min"
    limits.check_partition(plan, known, made.problems)
    return made


def _nodes(plan: Plan, partition: Partition) -> Finding:
    machines = partitions.machines(plan, partition)
    if not machines:
        return Finding("nodes", "not checked: scontrol shows none of them", made=False)
    made = Finding("nodes", compact(machine.name for machine in machines))
    limits.check_machines(plan, machines, made.problems)
    off = [f"{each.name} is {each.state}" for each in machines if not each.available]
    made.text += f"; {', '.join(off)}: the job may wait" if off else ""
    return made


def _reservation(plan: Plan, known: Mapping[str, Sequence[str]]) -> Finding:
    made = Finding("reservation")
    nodes = limits.check_reservation(plan, known, made.problems)
    if not nodes and not made.problems:
        return Finding("reservation", "not checked: Slurm lists none", made=False)
    made.text = compact(nodes)
    return made


def _account(plan: Plan) -> Finding:
    assert plan.slurm is not None
    asked = plan.slurm
    text = f"account {asked.account or 'default'}, qos {asked.qos or 'default'}"
    made = Finding("account", text)
    if limits.check_account(plan, made.problems):
        return made
    return Finding("account", f"{text}: not checked by Slurm's accounting", made=False)
