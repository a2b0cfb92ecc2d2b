"""Whether a run fits into GPU memory and the wall limit, checked before it is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plans import plan_of

from sut.errors import Errors, InputError
from sut.plan import fit
from sut.plan.benchmark import Engine, Scenario, ScenarioSettings
from sut.plan.plan import Mode
from sut.plan.site import Device, Site, SiteNode, SiteSlurm

LLAMA = fit.ModelSize(weights_gib=14.96, kv_bytes_per_token=131_072, num_heads=32, num_layers=32)


def test_reads_a_models_size_from_its_folder(tmp_path: Path) -> None:
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
    errors = Errors()
    node = SiteNode(name="n", gpus=1, gpu_memory_gib=gpu_memory_gib)
    fit.check_model(LLAMA, engine, site, [node], errors)
    return "\n".join(map(str, errors))


def test_a_large_model_gets_a_hint() -> None:
    assert check(24) == ""
    assert check(0) == ""  # unknown, so not checked
    assert "--set engine.tensor_parallel_size=2" in check(16)
    assert check(16, tp=2) == ""
    assert "vLLM uses 12.0 of 24 GiB" in check(24, extra_args=("--gpu-memory-utilization=0.5",))
    assert "does not divide the model's 32 attention heads" in check(24, tp=3)


@pytest.mark.parametrize(
    ("scenario", "settings", "seconds"),
    [
        (
            Scenario.SERVER,
            ScenarioSettings(target_qps=1.0),
            13_368,
        ),  # 3.7 h: a whole pass of the data set
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
def test_predicts_the_measured_time(
    scenario: Scenario, settings: ScenarioSettings, seconds: float
) -> None:
    assert fit.phase_s(scenario, Mode.PERFORMANCE, settings, 13_368) == pytest.approx(seconds)


def test_refuses_a_run_over_the_sites_limit() -> None:
    site = Site(name="s", slurm=SiteSlurm(max_time_min=60))
    errors = Errors()
    assert fit.time_min(site, 600, errors) == 27 and not errors
    fit.time_min(site, 13_368, errors)
    text = str(errors[0])
    assert "needs about" in text and "enough for" in text and "minutes of measuring\n" in text


def test_a_plan_asks_slurm_for_gpus_and_time() -> None:
    plan = plan_of("smollm2-135m-news", site="devcluster", nodes="all")
    assert plan.slurm is not None and plan.slurm.gres == "gpu:a30:1"
    assert [node.name for node in plan.nodes] == ["jw2", "jw3"]
    assert 3 < plan.slurm.time_min < 20
    with pytest.raises(InputError, match="needs about"):
        plan_of("smollm2-135m-news", site="devcluster", sets=("site.slurm.time_min=4",))
