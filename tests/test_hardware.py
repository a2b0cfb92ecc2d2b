"""The step times of GPUs against the published results that they are fitted to."""

from __future__ import annotations

import pytest

from benchmarks.hardware import NUM_TOKENS, is_valid_at, offline_tokens_per_s
from sut.results import gpus
from sut.results.gpus import Hardware

FITTED = [gpu for gpu in gpus.ALL if gpu.published]


@pytest.mark.parametrize("gpu", FITTED, ids=lambda gpu: gpu.name)
def test_a_fit_gives_the_published_offline_result(gpu: Hardware) -> None:
    assert gpu.label == "fit" and gpu.published
    assert offline_tokens_per_s(gpu) == pytest.approx(gpu.published.offline, rel=0.005)


@pytest.mark.parametrize("gpu", FITTED, ids=lambda gpu: gpu.name)
def test_the_server_error_is_as_stated(gpu: Hardware) -> None:
    assert gpu.published and gpu.server_error is not None
    peak = gpu.published.server * (1 + gpu.server_error) / NUM_TOKENS
    assert is_valid_at(gpu, 0.99 * peak)
    assert not is_valid_at(gpu, 1.01 * peak)


def test_an_a30_is_computed_with_the_lowest_efficiency() -> None:
    assert gpus.A30.label == "computed"
    assert gpus.A30.efficiency == min(gpu.efficiency for gpu in FITTED)
    # Its data sheet's bandwidth: no step is shorter than reading 15 GB of weights.
    assert gpus.A30.times.base_us > 15.0e9 / 933e9 * 1e6
