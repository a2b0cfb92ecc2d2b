"""Where a run's result stands among published ones, with the labels that MLPerf's results messaging
guidelines (mlcommons/policies) ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from sut import layout
from sut.errors import InputError
from sut.plan.plan import Mode
from sut.report.markdown import bullets, inline, table
from sut.report.page import Section
from sut.results import messaging, published
from sut.results.published import Place, Standing
from sut.results.record import Record
from sut.units import number, quantity

RIGHT = (0, 1, 2)


def section(record: Record) -> Section | None:
    """None for a run without a VALID performance test of a benchmark with published results."""
    phase = next((p for p in record.phases if p.test.mode is Mode.PERFORMANCE), None)
    if record.plan.benchmark not in published.BENCHMARKS:
        return None
    if phase is None or phase.verdict.verdict != "VALID":
        return None
    gpu = next((gpu.name for gpu in record.environment.gpus), "")
    subject = published.subject_of(record.plan, gpu)
    try:
        found = published.standing(phase.loadgen, subject, record.plan.scenario)
    except InputError as error:
        return Section(
            title="Among published results", text=bullets([str(error).partition("\n")[0]])
        )
    parts = [
        *(f"**{inline(text)}**" for text in warning(found)),
        f"{heading(found)}:",
        table(_head(found), _rows(found), right=RIGHT),
        bullets(notes(found, record.not_official_because)),
    ]
    return Section(title="Among published results", text="\n\n".join(parts))


def to_lines(found: Standing, because: tuple[str, ...], width: int | None) -> list[str]:
    """The same for a terminal. ``because``: why the result is not official; empty if it may be."""
    rows = layout.columns(_head(found), _rows(found), RIGHT, layout.less(width, 2))
    listed = (layout.wrap(note, width, "  - ", layout.INDENT) for note in notes(found, because))
    return [
        *(line for text in warning(found) for line in layout.wrap(text, width)),
        *layout.wrap(f"{heading(found)}:", width),
        *layout.indented(rows, 2),
        *itertools.chain(*listed),
    ]


def heading(found: Standing) -> str:
    mine = next(place for place in found.places if place.published is None)
    rounds = " and ".join(found.rounds) if len(found.rounds) < 3 else ", ".join(found.rounds)
    rank = f"{'would be ' * bool(found.not_comparable)}rank {mine.rank}"
    return (
        f"{found.unit}: {number(mine.per_unit)} (unverified), {rank} of "
        f"{number(found.num + 1)}, beside {quantity(found.num, 'results')} of {found.benchmark}, "
        f"{found.scenario}, published in the closed division of MLPerf Inference {rounds}"
    )


def warning(found: Standing) -> list[str]:
    """Why a rank has no meaning; empty where it has one."""
    if not found.not_comparable:
        return []
    return [f"Not comparable with published results: {'; '.join(found.not_comparable)}."]


def notes(found: Standing, because: tuple[str, ...]) -> Iterator[str]:
    if because:
        yield (
            "This result is not official, so it is not comparable by MLPerf's rules: "
            f"{'; '.join(because)}"
        )
    if "/s per" in found.unit:
        yield f"{found.unit} is a derived metric; MLPerf's is {found.metric} of the whole system."
    yield messaging.UNVERIFIED + " " + messaging.COMPARED
    yield (
        "The published results are MLCommons' at the time of each round's publication; before you "
        "cite one, take its current value and its ID from mlcommons.org/benchmarks."
    )
    yield messaging.TRADEMARK


def _head(found: Standing) -> tuple[str, ...]:
    return ("rank", found.unit, found.metric, "accelerators", "round", "submitter, system")


def _rows(found: Standing) -> list[tuple[str, ...]]:
    return [
        (number(each.rank), number(each.per_unit), number(each.result), *_who(each, found))
        for each in found.places
    ]


def _who(place: Place, found: Standing) -> tuple[str, str, str]:
    theirs = place.published
    if theirs is None:
        mine = _accelerators(found.accelerators, found.accelerator)
        return mine, "-", "this result (unverified)"
    accelerators = _accelerators(theirs.accelerators, theirs.accelerator)
    available = "" if theirs.availability in ("", "available") else f" ({theirs.availability})"
    return accelerators, theirs.round, f"{theirs.organization}, {theirs.system}{available}"


def _accelerators(num: int, name: str) -> str:
    return f"{num} {name}".rstrip() if num else "none"
