"""Step times: inferred from frames of outputs, and fitted."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from replay import MAX_TOKENS, served

from sut.results import service, steps
from sut.results.service import ServiceTimes
from sut.results.steps import EngineStep

MS = 1_000_000


def work(count: int, seed: int = 1) -> Iterator[tuple[int, int, int]]:
    """Decoding sequences, prefill tokens and context tokens of steps."""
    source = random.Random(seed)
    for _ in range(count):
        decoding = source.randint(1, 32)
        yield decoding, 60 * source.choice([0, 0, 1, 2]), decoding * source.randint(50, 400)


def steps_of(
    truth: ServiceTimes, count: int, *, noise: float = 0.0, seed: int = 1
) -> list[EngineStep]:
    source = random.Random(seed)
    return [
        step._replace(duration_us=truth.step_us(step) * source.lognormvariate(0, noise))
        for step in (EngineStep(0.0, *each) for each in work(count, seed))
    ]


TRUTH = ServiceTimes(
    base_us=5000, per_sequence_us=120, per_prefill_token_us=40, per_context_token_us=0.5
)


@pytest.mark.parametrize("seed", range(3))
def test_recovers_the_coefficients(seed: int) -> None:
    found = service.fit(steps_of(TRUTH, 60, seed=seed))
    assert found is not None
    assert found.base_us == pytest.approx(5000) and found.per_sequence_us == pytest.approx(120)
    assert found.per_prefill_token_us == pytest.approx(40)
    assert found.per_context_token_us == pytest.approx(0.5)
    assert found.noise < 1e-9 and found.spread < 1e-6 and found.hiccup_probability == 0


@pytest.mark.parametrize("seed", range(3))
def test_predicts_noisy_steps_within_two_percent(seed: int) -> None:
    found = service.fit(steps_of(TRUTH, 3000, noise=0.1, seed=seed))
    assert found is not None and found.noise == pytest.approx(0.1, abs=0.01)
    for each in work(20, seed=99):
        step = EngineStep(0.0, *each)
        assert found.step_us(step) == pytest.approx(TRUTH.step_us(step), rel=0.02)
    assert found.spread < 0.02


def test_hiccups_do_not_change_the_coefficients() -> None:
    measured = steps_of(TRUTH, 2000, noise=0.02)
    with_hiccups = [
        step._replace(duration_us=step.duration_us + (80_000 if i % 100 == 7 else 0))
        for i, step in enumerate(measured)
    ]
    found, without = service.fit(with_hiccups), service.fit(measured)
    assert found is not None and without is not None
    assert found.base_us == pytest.approx(without.base_us, rel=0.01)
    assert found.per_prefill_token_us == pytest.approx(without.per_prefill_token_us, rel=0.02)
    assert found.hiccup_probability == pytest.approx(0.01)
    assert found.hiccup_us == pytest.approx(80_000, rel=0.01)


def test_no_coefficient_is_negative() -> None:
    shrinking = [EngineStep(9000 - 10 * n, n, 0, 0) for n in range(1, 33)]
    found = service.fit(shrinking)
    assert found is not None and found.per_sequence_us == 0 and found.base_us > 8000


def test_a_change_of_speed_is_spread_and_not_hiccups() -> None:
    steady = steps_of(TRUTH, 400, noise=0.02)
    slower = [
        step._replace(duration_us=step.duration_us * (1.5 if i >= 200 else 1))
        for i, step in enumerate(steady)
    ]
    found = service.fit(slower)
    assert found is not None and found.spread == pytest.approx(0.2, abs=0.03)
    assert found.hiccup_probability < 0.01


def test_independent_noise_is_no_spread() -> None:
    """Without the correction it is 4.5%: parts of 5 steps with a noise of 10%."""
    found = [service.fit(steps_of(TRUTH, 40, noise=0.1, seed=seed)) for seed in range(40)]
    assert sum(each is not None and each.spread == 0 for each in found) >= 35


def test_a_busy_part_of_a_short_measurement_is_spread() -> None:
    for seed in range(20):
        steady = steps_of(TRUTH, 40, noise=0.1, seed=seed)
        slower = [
            step._replace(duration_us=step.duration_us * (1.6 if i >= 20 else 1))
            for i, step in enumerate(steady)
        ]
        found = service.fit(slower)
        assert found is not None and found.spread == pytest.approx(0.23, abs=0.08)


def test_few_steps_give_no_fit() -> None:
    assert service.fit(steps_of(TRUTH, service.MIN_STEPS - 1)) is None


# Steps from frames.


def columns(frames: list[tuple[int, int, int, int]]) -> dict[str, list[int]]:
    """Frames of one replica: time in ms, decoding sequences, prompts, their tokens."""
    return {
        "replica": [0] * len(frames),
        "num_decoding": [frame[1] for frame in frames],
        "num_prompts": [frame[2] for frame in frames],
        "prompt_tokens": [frame[3] for frame in frames],
        "context_tokens": [100 * frame[1] for frame in frames],
        "received_ns": [frame[0] * MS for frame in frames],
        "engine_ns": [(frame[0] + 1000) * MS for frame in frames],
    }


def samples(prompts: list[tuple[int, int, int]]) -> dict[str, list[int]]:
    """Prompts: admitted and first token in ms, tokens."""
    return {
        "replica": [0] * len(prompts),
        "admitted_ns": [prompt[0] * MS for prompt in prompts],
        "first_token_ns": [prompt[1] * MS for prompt in prompts],
        "prompt_tokens": [prompt[2] for prompt in prompts],
    }


def test_a_step_lasts_from_the_end_of_the_one_before() -> None:
    frames = columns([(10, 0, 1, 30), (15, 1, 0, 0), (22, 1, 1, 50), (900, 0, 1, 40)])
    found = steps.of_dispatcher(frames, samples([(1, 10, 30), (16, 22, 50), (880, 900, 40)]), 256)
    # The first and the last follow an idle engine.
    assert found == [EngineStep(5000, 1, 0, 100), EngineStep(7000, 1, 50, 100)]


def test_a_prompt_that_waited_filled_the_steps_before_its_last() -> None:
    frames = columns([(10, 4, 0, 0), (20, 4, 0, 0), (30, 4, 0, 0), (40, 4, 0, 0), (50, 4, 2, 280)])
    waited = samples([(11, 50, 250), (12, 50, 30)])
    found = steps.of_dispatcher(frames, waited, 104)
    # They arrived during the second step, and 100 tokens fit in each of the next ones.
    assert [step.num_prefill_tokens for step in found] == [0, 100, 100, 80]


def test_a_prompt_that_waited_for_a_place_was_not_split() -> None:
    frames = columns([(10, 2, 0, 0), (20, 2, 0, 0), (30, 1, 0, 0), (40, 1, 1, 60)])
    found = steps.of_dispatcher(frames, samples([(5, 40, 60)]), 104)
    assert [step.num_prefill_tokens for step in found] == [0, 0, 60]


def test_receipt_replaces_a_missing_timestamp() -> None:
    frames = columns([(10, 1, 0, 0), (15, 1, 0, 0)])
    frames["engine_ns"] = [0, 0]
    assert steps.of_dispatcher(frames, samples([]), 256)[0].duration_us == 5000


def test_fits_what_a_replay_engine_takes() -> None:
    """By conservation only: a busy machine changes times, never tokens."""
    with served(8, 2, "--step-base-us", "1000", "--step-per-sequence-us", "50") as dispatcher:
        dispatcher.log_steps(True)
        dispatcher.reset_stats()
        dispatcher.generate([i % 8 for i in range(200)], -1, 30.0)
        frames, done = dispatcher.steps(), dispatcher.samples()
    assert sum(frames["num_prompts"]) == 200
    assert sum(frames["num_decoding"]) == 200 * (MAX_TOKENS - 1)
    found = steps.of_dispatcher(frames, done, 8192)
    assert sum(step.num_prefill_tokens for step in found) <= 200 * 3
    times = service.fit(found)
    assert times is not None
    assert times.base_us + 64 * times.per_sequence_us > 900
