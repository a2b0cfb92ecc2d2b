"""A search for the best engine settings: its state, and the run that measures one of them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sut.cluster import runs
from sut.errors import InputError
from sut.launch import engine_sweep, newrun
from sut.launch.engine_sweep import Setting
from sut.launch.members import Member, Planned, Started
from sut.launch.request import RunRequest, make_plan
from sut.plan.benchmark import AUTO, Scenario
from sut.results.halving import Measurement
from sut.rundir import write_atomic
from sut.values import UNDECODABLE, PositiveFloat, Struct

FILE = "search.json"  # in the folder of a search
NAME = "search"


class Search(Struct, frozen=True, kw_only=True):
    """What a later command needs to continue it. ``simulated`` are the settings' figures in
    simulation, empty where nothing was simulated. ``test_s`` is the length of the tests of the
    first round."""

    request: RunRequest
    settings: tuple[Setting, ...]
    simulated: tuple[float, ...] = ()
    test_s: PositiveFloat
    measured: tuple[Measurement, ...] = ()

    @property
    def unit(self) -> str:
        return "samples/s" if self.request.scenario is Scenario.OFFLINE else "queries/s"


def plan(search: Search, setting: int, number: int) -> Planned:
    """The run that measures a setting in a round: in Offline what the engines complete, else a
    search for the highest VALID load. Raises InputError."""
    asked, which = search.request, f"scenarios.{search.request.scenario}"
    test_ms = round(1000 * search.test_s * 2**number)
    changes = [*engine_sweep.sets(search.settings[setting]), f"{which}.min_duration_ms={test_ms}"]
    is_offline = asked.scenario is Scenario.OFFLINE
    if is_offline:
        changes += [f"{which}.target_qps={AUTO}", f"{which}.min_query_count=1"]
    request = msgspec.structs.replace(asked, sets=(*asked.sets, *changes), tune=not is_offline)
    return Planned(engine_sweep.text(search.settings[setting]), *make_plan(request))


def new_folder(run_root: Path) -> Path:
    """Raises InputError."""
    with newrun.writing_to(run_root):
        return newrun.new_folder(run_root, NAME)


def write(search: Search, folder: Path) -> None:
    """The search, and its runs as a campaign's, for ``sut.campaign``. Raises InputError."""
    members = tuple(
        Member(
            name=f"{engine_sweep.text(search.settings[each.setting])}, round {each.round + 1}",
            run_dir=each.run_dir,
            job_id=each.job_id,
        )
        for each in search.measured
    )
    started = Started(name=NAME, members=members)
    with newrun.writing_to(folder):
        write_atomic(folder / runs.CAMPAIGN, msgspec.json.format(msgspec.json.encode(started)))
        write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(search)))


def read(folder: Path) -> Search:
    """Raises InputError."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Search)
    except (OSError, *UNDECODABLE) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"no search of engine settings found ({folder / FILE}): {why}",
            hint="give the folder that sut.tune printed: python -m sut.tune --resume FOLDER",
        ) from None
