"""The search for the highest VALID load: what was measured, simulated and tried."""

from __future__ import annotations

from collections.abc import Iterator

from sut.report.markdown import table
from sut.report.offered import curve, step_times
from sut.report.page import Section
from sut.results.tuning import Tuning
from sut.units import exact, number


def section(tuning: Tuning) -> Section:
    return Section(title="Tuning", text="\n\n".join(_paragraphs(tuning)))


def _paragraphs(tuning: Tuning) -> Iterator[str]:
    yield f"{tuning.text[0].upper()}{tuning.text[1:]}."
    rows = [
        (
            each.name,
            number(each.in_flight),
            number(each.samples_per_s),
            number(each.num_steps),
            number(each.duration_s),
        )
        for each in tuning.probes
    ]
    yield table(("probe", "in flight", "samples/s", "steps", "s"), rows)
    if tuning.trials:
        tried = [
            (exact(each.target_qps), each.verdict, number(each.duration_s))
            for each in tuning.trials
        ]
        yield "Performance phases; the last is the result of this run:"
        yield table(("queries/s", "verdict", "s"), tried)
    if tuning.service is not None:
        yield step_times(tuning.service)
    if tuning.peak is not None:
        yield "Simulated performance tests of this plan, with the fitted step times:"
        yield curve(tuning.peak)
