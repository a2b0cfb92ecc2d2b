"""A campaign that an earlier command left unfinished: what of it need not start again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sut.cluster import liveness, runs
from sut.errors import InputError
from sut.launch.executor import Submitted
from sut.launch.members import Job, Member, Planned, Started, digests
from sut.plan.config import Campaign
from sut.results import record
from sut.rundir import RunDir
from sut.values import UNDECODABLE


class Earlier(NamedTuple):
    """A run that is finished, pending or running; ``word`` is which, or its verdict."""

    member: Member
    word: str

    def job(self, planned: Planned) -> Job:
        """The run, to follow it."""
        run_dir = RunDir(self.member.run_dir)
        log = run_dir.job / f"{self.member.job_id}_0_log.out"
        return Job(Submitted(self.member.job_id, log), planned.plan, run_dir)


class Unfinished(NamedTuple):
    """``runs`` are those of ``folder`` that need not start again, by name."""

    folder: Path
    runs: dict[str, Earlier]


def find(campaign: Campaign, planned: Sequence[Planned]) -> Unfinished | None:
    """The newest submission of the same plans under the run root, unless all of its runs have a
    verdict. Raises InputError where one of them runs on this machine: the next would slow it down.
    """
    folder, members = _newest(campaign, planned)
    found = {}
    for each in planned:
        if each.name in members and (word := _state(members[each.name], each)):
            found[each.name] = Earlier(members[each.name], word)
    if folder is None or all(has_verdict(found.get(each.name)) for each in planned):
        return None
    for name, earlier in found.items():
        if planned[0].plan.slurm is None and not has_verdict(earlier):
            raise InputError(
                f"run {name} of campaign {folder} is {earlier.word} on this machine",
                hint="wait for its end, then give the same command: python -m sut.watch "
                f"{earlier.member.run_dir}",
            )
    return Unfinished(folder, found)


def has_verdict(earlier: Earlier | None) -> bool:
    return earlier is not None and earlier.word in ("VALID", "INVALID")


def _newest(
    campaign: Campaign, planned: Sequence[Planned]
) -> tuple[Path | None, dict[str, Member]]:
    plans = digests(planned)
    for file in sorted(planned[0].run_root.glob(f"*/{runs.CAMPAIGN}"), reverse=True):
        try:
            started = msgspec.json.decode(file.read_bytes(), type=Started)
        except (OSError, *UNDECODABLE):
            continue
        if started.name == campaign.name and started.plans == plans:
            return file.parent, {member.name: member for member in started.members}
    return None, {}


def _state(member: Member, planned: Planned) -> str:
    """Empty for a run that has to start again: it failed, was cancelled or lost its folder."""
    run_dir = RunDir(member.run_dir)
    try:
        found = record.read(run_dir.record)
    except InputError:
        found = None
    if found is not None and not found.interim:
        return found.verdict or ""
    if not run_dir.plan.is_file():
        return ""
    state = liveness.of_run(run_dir, planned.plan).state
    if state == "ended" or (state == "unknown" and planned.plan.slurm is None):
        return ""
    return {"active": "running", "unknown": "in an unknown state"}.get(state, state)
