"""The load that a run chose, and what it measured to choose it."""

from __future__ import annotations

from sut.report.markdown import inline, table
from sut.report.page import Section
from sut.results.offered import OfferedLoad
from sut.units import number


def section(load: OfferedLoad) -> Section:
    rows = [
        (
            name,
            number(batch.in_flight),
            number(batch.num_samples),
            number(batch.samples_per_s),
            number(batch.ttft_ms),
            number(batch.tpot_ms),
        )
        for name, batch in (("full", load.full), ("small", load.small))
    ]
    head = ("batch", "in flight", "samples", "samples/s", "TTFT p90, ms", "TPOT p90, ms")
    text = (
        f"target_qps is auto. The run offered {inline(load.text)}. "
        f"{f'Run {inline(load.measured_by)}' if load.measured_by else 'It'} measured this after "
        "its warm-up, on all replicas together; TTFT is counted from a sample's arrival at a "
        "replica."
    )
    return Section(title="Load", text=f"{text}\n\n{table(head, rows)}")
