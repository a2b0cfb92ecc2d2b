"""The highest VALID load of a simulated test, and the load that a run offers below it."""

from __future__ import annotations

import msgspec
import pytest

from sut.results import peak
from sut.results.offered import (
    FRACTION,
    LEAST,
    MOST_SLOWDOWN,
    SLOWDOWN,
    SPREADS,
    Batch,
    choose,
)
from sut.results.peak import Limits, Peak, Tried
from sut.results.service import ServiceTimes

NUM_SAMPLES = 662  # one may be over a limit


def attempt_with(capacity: float, *, limit: str = "TTFT") -> peak.Attempt:
    """Two samples are over ``limit`` above ``capacity``, one of them below it too."""

    def attempt(qps: float) -> Tried:
        over = 1 if qps <= capacity else 2
        return Tried(
            target_qps=qps,
            num_samples=NUM_SAMPLES,
            num_allowed=peak.allowed(NUM_SAMPLES),
            num_ttft_over=over if limit == "TTFT" else 0,
            num_tpot_over=over if limit == "TPOT" else 0,
            ttft_p99_ms=100 * qps / capacity,
            tpot_p99_ms=40.0,
        )

    return attempt


@pytest.mark.parametrize("guess", [0.001, 0.3, 1.0, 7.0, 7.7, 60.0, 900.0, 50_000.0])
def test_finds_the_peak_from_any_guess(guess: float) -> None:
    found = peak.find(attempt_with(7.7), guess)
    assert 7.7 / (1 + peak.TOLERANCE) <= found.target_qps <= 7.7
    assert found.limit == "TTFT" and found.at_peak is not None and found.at_peak.is_valid
    loads = [each.target_qps for each in found.tried]
    assert loads == sorted(loads) and len(loads) == len(set(loads))


def test_names_the_limit_that_binds() -> None:
    assert peak.find(attempt_with(7.7, limit="TPOT"), 5.0).limit == "TPOT"


def test_no_valid_load_gives_no_peak() -> None:
    found = peak.find(attempt_with(1e-12), 5.0)
    assert found.target_qps == 0 and found.at_peak is None and found.limit == "TTFT"


def test_no_limit_binds_where_every_load_is_valid() -> None:
    found = peak.find(attempt_with(1e9), 5.0)
    assert found.limit == "" and found.target_qps == found.tried[-1].target_qps


def test_the_budget_is_early_stoppings() -> None:
    assert [peak.allowed(n) for n in (458, 459, 661, 662, 13_368)] == [-1, 0, 0, 1, 107]
    none = attempt_with(7.7)(1.0)
    assert not msgspec.structs.replace(none, num_ttft_over=0, num_allowed=-1).is_valid
    both = msgspec.structs.replace(none, num_ttft_over=1, num_tpot_over=1)
    assert both.is_valid  # each limit has its own budget


def test_margins_are_of_the_peak() -> None:
    found = peak.find(attempt_with(7.7), 5.0)
    text = peak.margins(found, Limits(ttft_ms=200, tpot_ms=50))
    assert "of 200 ms, 50" in text and "TPOT p99 40 ms of 50 ms, 20% unused" in text
    assert peak.margins(peak.find(attempt_with(1e-9), 5.0), Limits(ttft_ms=1, tpot_ms=1)) == ""


# The offered load.

SMALL = Batch(in_flight=4, num_samples=12, samples_per_s=4.0, ttft_ms=100.0, tpot_ms=50.0)
FULL = Batch(in_flight=32, num_samples=96, samples_per_s=16.0, ttft_ms=800.0, tpot_ms=190.0)
SERVICE = ServiceTimes(
    base_us=30_000, per_sequence_us=1000, per_prefill_token_us=1000, per_context_token_us=0
)


def peak_at(slowdown: float) -> Peak:
    return peak.find(attempt_with(18.0 / slowdown), 16.0)


def test_offers_what_is_valid_on_a_slower_machine() -> None:
    load = choose(FULL, SMALL, SERVICE, peak_at, has_limits=True)
    assert load.target_qps == pytest.approx(18 / SLOWDOWN, rel=0.01)
    assert load.peak is not None and load.slowed is not None and load.slowdown == SLOWDOWN
    assert "of the simulated peak of 18 queries/s, which TTFT limits; VALID in" in load.text


@pytest.mark.parametrize("spread", [0.02, 0.1, 5.0])
def test_an_unsteady_machine_is_offered_less(spread: float) -> None:
    unsteady = msgspec.structs.replace(SERVICE, spread=spread)
    load = choose(FULL, SMALL, unsteady, peak_at, has_limits=True)
    assert load.slowdown == min(MOST_SLOWDOWN, SLOWDOWN * (1 + SPREADS * spread))
    assert load.target_qps == pytest.approx(18 / load.slowdown, rel=0.01)


def test_never_offers_less_than_a_part_of_the_peak() -> None:
    load = choose(FULL, SMALL, SERVICE, lambda s: peak_at(1.0 if s == 1 else 1e9), has_limits=True)
    assert load.target_qps == pytest.approx(LEAST * 18, rel=0.01)
    assert "warning: INVALID in simulation if the engines become 1.75 times as slow" in load.reason


def test_never_offers_more_than_the_peak() -> None:
    load = choose(FULL, SMALL, SERVICE, lambda s: peak_at(1.0 if s == 1 else 0.5), has_limits=True)
    assert load.target_qps == pytest.approx(18, rel=0.01)


def test_a_limit_that_no_load_meets_gives_less_than_one_sample_at_a_time() -> None:
    load = choose(FULL, SMALL, SERVICE, lambda _: peak_at(1e15), has_limits=True)
    assert load.target_qps == pytest.approx(
        FRACTION * SMALL.samples_per_s / SMALL.in_flight, rel=0.01
    )
    assert "no load is VALID in simulation" in load.reason


def test_without_limits_a_fraction_of_the_full_batch_is_offered() -> None:
    load = choose(FULL, SMALL, SERVICE, None, has_limits=False)
    assert load.target_qps == pytest.approx(FRACTION * 16) and load.peak is None


def test_too_few_steps_give_a_fraction_of_the_small_batch() -> None:
    load = choose(FULL, SMALL, None, None, has_limits=True)
    assert load.target_qps == pytest.approx(FRACTION * 4) and "too few steps" in load.reason
