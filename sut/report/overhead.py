"""What the harness itself costs: measured before the phases, and its share of their results."""

from __future__ import annotations

from collections.abc import Iterator

from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.report.markdown import inline, percent, table
from sut.report.page import Section
from sut.results import overhead
from sut.results.issue_delay import IssueDelay
from sut.results.measures import Measures, measure
from sut.results.overhead import Ceiling, Overhead, Paced
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record
from sut.units import number, quantity

LATE_MS = 1.0
WORST = 5  # seconds of a test


def section(record: Record) -> Section | None:
    parts = [*_certificate(record)] if record.overhead else []
    for phase in record.phases:
        parts += [_issue_delay(phase.issue_delay)] if phase.issue_delay else []
    return Section(title="Overhead", text="\n\n".join(parts)) if parts else None


def advice(record: Record, phase: PhaseRecord) -> Iterator[str]:
    """Where the harness may be what limits the result."""
    found, measures = record.overhead, measure(phase.loadgen)
    if found is None or not overhead.is_near_the_ceiling(found, record.plan.scenario, measures):
        return
    share = overhead.load_share(found, record.plan.scenario, measures)
    yield (
        f"The load is {percent(share)} of what the dispatcher of this head can do with one engine "
        f"that takes no time; above {overhead.NEAR:.0%} the harness may be part of the latencies. "
        "Give the head more cores, or offer less."
    )


def _certificate(record: Record) -> Iterator[str]:
    found = record.overhead
    assert found is not None
    if found.not_measured:
        yield f"Not measured: {inline(found.not_measured)}"
        return
    yield (
        "LoadGen and the dispatcher on the head with one replay engine that takes no time, "
        "measured before the first test. The latencies are upper bounds of what the harness adds."
    )
    if found.ceiling:
        yield _ceiling(found.ceiling)
    if found.paced:
        phases = [phase for phase in record.phases if phase.test.mode == Mode.PERFORMANCE]
        measures = measure(phases[-1].loadgen) if phases else None
        yield _paced(found.paced, measures)
        if measures:
            yield from _load(found, record.plan.scenario, measures)


def _ceiling(ceiling: Ceiling) -> str:
    qps = ceiling.token_events_per_s / ceiling.num_tokens
    return (
        f"Ceiling: at least {quantity(ceiling.token_events_per_s, 'token events/s')}, "
        f"{quantity(qps, 'queries/s')} of {ceiling.num_tokens} tokens each, at "
        f"{quantity(ceiling.cpu_us_per_token, 'us')} of CPU time for a token event."
    )


def _paced(paced: Paced, measures: Measures | None) -> str:
    planned = (
        f"; the run's load is {number(paced.planned_qps)}"
        if paced.planned_qps is not None and paced.planned_qps != paced.qps
        else ""
    )
    head = ("added, us", "p50", "p99", "p99.9", "of the measured p50", "of the measured p99")
    rows = []
    for name, tail in (("TTFT", paced.ttft_us), ("TPOT", paced.tpot_us)):
        quantiles = measures and (measures.ttft_ms if name == "TTFT" else measures.tpot_ms)
        shares = [
            _at_most(overhead.share(added, measured))
            for added, measured in (
                (tail.p50, quantiles.p50 if quantiles else None),
                (tail.p99, quantiles.p99 if quantiles else None),
            )
        ]
        rows.append((name, number(tail.p50), number(tail.p99), number(tail.p999), *shares))
    return (
        f"{table(head, rows, right=range(1, 6))}\n\n"
        f"{quantity(paced.num_queries, 'queries')} of {quantity(paced.num_tokens, 'tokens')} at "
        f"{number(paced.qps)} queries/s{planned}; {quantity(paced.cpu_us_per_token, 'us')} of CPU "
        "time for a token event, where few share a message."
    )


def _at_most(share: float | None) -> str:
    return "-" if share is None else f"at most {percent(share)}"


def _load(found: Overhead, scenario: Scenario, measures: Measures) -> Iterator[str]:
    share = overhead.load_share(found, scenario, measures)
    if share is not None:
        yield f"The performance test took {percent(share)} of the ceiling."


def _issue_delay(delay: IssueDelay) -> str:
    """LoadGen's issued against its scheduled times."""
    text = (
        f"LoadGen issued its queries {quantity(delay.p50_ms, 'ms')} (p50), "
        f"{quantity(delay.p99_ms, 'ms')} (p99) and at most {quantity(delay.max_ms, 'ms')} after "
        "their scheduled time. Latencies count from the scheduled time."
    )
    seconds = range(len(delay.scheduled))
    late = [second for second in seconds if delay.max_ms_by_second[second] > LATE_MS]
    if not late:
        return text
    worst = sorted(late, key=delay.max_ms_by_second.__getitem__, reverse=True)[:WORST]
    rows = [
        (
            number(second),
            number(delay.scheduled[second]),
            number(delay.issued[second]),
            number(delay.max_ms_by_second[second]),
        )
        for second in sorted(worst)
    ]
    head = ("second", "scheduled", "issued", "longest delay, ms")
    return (
        f"{text} In {len(late)} of {quantity(len(seconds), 'seconds')} a query was more than "
        f"{number(LATE_MS)} ms late; the worst:\n\n{table(head, rows, right=range(4))}"
    )
