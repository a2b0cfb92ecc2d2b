"""Whether a run fits into the GPUs' memory and the wall limit is known before it is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plans import plan_of

from sut.errors import InputError
from sut.plan import fit
from sut.plan.benchmark import Engine, Scenario, ScenarioSettings
from sut.plan.plan import Mode
from sut.plan.site import Device, Site, SiteNode, SiteSlurm

LLAMA = fit.ModelSize(weights_gib=14.96, kv_bytes_per_token=131_072, num_heads=32, num_layers=32)


def test_a_models_size_is_read_from_its_folder(tmp_path: Path) -> None:
    config = {"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 4096}))
    (tmp_path / "model.safetensors").write_bytes(bytes(2**20))
    size = fit.model_size(tmp_path)
    assert size is not None and size.kv_bytes_per_token == 131_072
    assert size.weights_gib == pytest.approx(1 / 1024)
    assert fit.model_size(tmp_path / "missing") is None


def check(gpu_memory_gib: float, tp: int = 1, extra_args: tuple[str, ...] = ()) -> str:
    engine = Engine(
        extra_args=extra_args,
        max_model_len=2668,
        max_num_seqs=64,
        max_num_batched_tokens=1024,
        tensor_parallel_size=tp,
    )
    site = Site(name="s", device=Device.CUDA)
    mistakes: list[str] = []
    node = SiteNode(name="n", gpus=1, gpu_memory_gib=gpu_memory_gib)
    fit.check_model(LLAMA, engine, site, [node], mistakes)
    return "\n".join(mistakes)


def test_a_model_that_does_not_fit_is_told_with_how_many_gpus_would_hold_it() -> None:
    assert check(24) == ""
    assert check(0) == ""  # not known, so not judged
    assert "--set engine.tensor_parallel_size=2" in check(16)
    assert check(16, tp=2) == ""
    assert "vLLM uses 12.0 of 24 GiB" in check(24, extra_args=("--gpu-memory-utilization=0.5",))
    assert "does not divide the model's 32 attention heads" in check(24, tp=3)


@pytest.mark.parametrize(
    ("scenario", "settings", "seconds"),
    [
        (Scenario.SERVER, ScenarioSettings(target_qps=1.0), 13_368),  # 3.7 h: a whole pass
        (Scenario.OFFLINE, ScenarioSettings(target_qps=4.0), 13_368 / 4),
        (
            Scenario.SERVER,
            ScenarioSettings(target_qps=10.0, min_duration_ms=1000, min_query_count=500),
            50,
        ),
        (Scenario.SERVER, ScenarioSettings(target_qps=2.0, max_query_count=10), 5),
        (
            Scenario.SINGLE_STREAM,
            ScenarioSettings(target_latency_ms=500, min_duration_ms=1000, min_query_count=70),
            35,
        ),
    ],
)
def test_the_measured_time_is_predicted(
    scenario: Scenario, settings: ScenarioSettings, seconds: float
) -> None:
    assert fit.measured_s(scenario, (Mode.PERFORMANCE,), settings, 13_368) == pytest.approx(seconds)


def test_a_run_longer_than_the_site_allows_is_refused_with_what_would_fit() -> None:
    site = Site(name="s", slurm=SiteSlurm(max_time_min=60))
    mistakes: list[str] = []
    assert fit.time_min(site, 600, mistakes) == 27 and not mistakes
    fit.time_min(site, 13_368, mistakes)
    assert "needs about" in mistakes[0] and "minutes of measuring would fit" in mistakes[0]


def test_a_plan_asks_slurm_for_the_nodes_gpus_and_the_time_it_needs() -> None:
    plan = plan_of("smollm2-135m-news", site="devcluster", nodes="all")
    assert plan.slurm is not None and plan.slurm.gres == "gpu:a30:1"
    assert [node.name for node in plan.nodes] == ["jw2", "jw3"]
    assert 3 < plan.slurm.time_min < 20
    with pytest.raises(InputError, match="needs about"):
        plan_of("smollm2-135m-news", site="devcluster", sets=("site.slurm.time_min=4",))
