"""The load that a run chose, and what it measured, fitted and simulated to choose it."""

from __future__ import annotations

from collections.abc import Iterator

from sut.report.markdown import inline, table
from sut.report.page import Section
from sut.results.offered import OfferedLoad
from sut.results.peak import Peak
from sut.results.service import ServiceTimes
from sut.units import number, quantity


def section(load: OfferedLoad) -> Section:
    return Section(title="Load", text="\n\n".join(_paragraphs(load)))


def _paragraphs(load: OfferedLoad) -> Iterator[str]:
    yield (
        f"target_qps is auto. The run offered {inline(load.text)}. "
        f"{f'Run {inline(load.measured_by)}' if load.measured_by else 'It'} measured this after "
        "its warm-up, on all replicas together; TTFT is counted from a sample's arrival at a "
        "replica."
    )
    yield _batches(load)
    if load.service is not None:
        yield step_times(load.service)
    if load.peak is not None:
        yield "Simulated performance tests of this plan, with the fitted step times:"
        yield curve(load.peak)


def _batches(load: OfferedLoad) -> str:
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
    return table(head, rows)


def step_times(service: ServiceTimes) -> str:
    """The fitted step times in words."""
    return (
        f"A step takes {quantity(service.base_us / 1e3, 'ms')}, and "
        f"{quantity(service.per_sequence_us, 'us')} more for each decoding sequence, "
        f"{quantity(service.per_prefill_token_us, 'us')} for each prefill token and "
        f"{quantity(service.per_context_token_us, 'us')} for each context token (fitted to "
        f"{quantity(service.num_steps, 'steps')}). Single steps vary by "
        f"{number(100 * service.noise)}%, the mean between parts of the measurement by "
        f"{number(100 * service.spread)}%; {number(100 * service.hiccup_probability)}% of steps "
        f"take {quantity(service.hiccup_us / 1e3, 'ms')} longer than fitted."
    )


def curve(peak: Peak) -> str:
    """Every load tried, and whether it is VALID."""
    rows = [
        (
            number(each.target_qps),
            "VALID" if each.is_valid else "INVALID",
            number(each.ttft_p99_ms),
            number(each.tpot_p99_ms),
            number(each.num_ttft_over),
            number(each.num_tpot_over),
            number(max(0, each.num_allowed)),
        )
        for each in peak.tried
    ]
    head = ("queries/s", "verdict", "TTFT p99, ms", "TPOT p99, ms", "over TTFT", "over TPOT")
    return table((*head, "allowed"), rows)
