"""Where the time of a run went."""

from __future__ import annotations

from collections.abc import Sequence

from sut.plan.plan import Mode
from sut.report import bars
from sut.report.bars import Bar
from sut.report.markdown import percent, table
from sut.report.page import Figure, Section
from sut.report.summary import total_s
from sut.results.record import REPORT, Record, Step
from sut.units import quantity

# Steps in which LoadGen measures.
TESTS = (Mode.PERFORMANCE, Mode.ACCURACY, Mode.COMPLIANCE, Mode.TEST07)
DRAWN = 0.01  # of the total: shorter steps are in the table only
TEST, OTHER = "LoadGen's test", "other"
NOT_HERE = "record.json also has the time of writing this report."


def section(record: Record) -> Section | None:
    """Every step but the last, the report: drawn again, a report stays the same."""
    steps = [step for step in record.timings if step.name != REPORT]
    if not steps:
        return None
    total = total_s(steps)
    rows = [
        (
            step.name,
            quantity(step.start_s, "s"),
            quantity(step.duration_s, "s"),
            percent(step.duration_s / total if total else None),
        )
        for step in steps
    ]
    rows.append(("total", "", quantity(total, "s"), ""))
    of = "the last attempt" if len(record.attempts) > 1 else "the run"
    text = f"Steps of {of}, from the start of its process. {NOT_HERE}"
    return Section(
        title="Timings",
        text=f"{table(('step', 'start', 'duration', 'share'), rows, right=range(1, 4))}\n\n{text}",
        figures=_figures(steps, total),
    )


def _figures(steps: Sequence[Step], total: float) -> tuple[Figure, ...]:
    rows = [
        Bar(
            label=step.name,
            begin=step.start_s,
            parts=((TEST if step.name in TESTS else OTHER, step.duration_s),),
        )
        for step in steps
        if step.duration_s >= DRAWN * total
    ]
    measured_s = sum(step.duration_s for step in steps if step.name in TESTS)
    share = percent(measured_s / total if total else None)
    caption = f"Steps that took {DRAWN:.0%} of the time or more. LoadGen's tests took {share}."
    drawn = bars.figure("Time by step", caption, "s", rows, (TEST, OTHER))
    return (drawn,) if drawn else ()
