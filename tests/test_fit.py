"""Whether a run fits into GPU memory and the wall limit, checked before it is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from plans import plan_of

from sut.errors import Errors, InputError
from sut.plan import duration, fit
from sut.plan.benchmark import Engine, Scenario, ScenarioSettings
from sut.plan.plan import Mode
from sut.plan.site import Device, Site, SiteNode, SiteSlurm

LLAMA = fit.ModelSize(
    weights_gib=14.96,
    kv_bytes_per_token=131_072,
    num_heads=32,
    num_kv_heads=8,
    num_layers=32,
    max_len=131_072,
)


def test_reads_a_models_size_from_its_folder(tmp_path: Path) -> None:
    config = {"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}
    rope = {"max_position_embeddings": 131_072, "rope_scaling": {"rope_type": "llama3"}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **rope, "hidden_size": 4096}))
    (tmp_path / "model.safetensors").write_bytes(bytes(2**20))
    size = fit.model_size(tmp_path)
    assert size is not None and size.kv_bytes_per_token == 131_072
    assert size.weights_gib == pytest.approx(1 / 1024)
    assert (size.num_kv_heads, size.max_len) == (8, 131_072)
    assert fit.model_size(tmp_path / "missing") is None


def test_a_scaled_rotary_embedding_has_no_known_length(tmp_path: Path) -> None:
    config = {"num_attention_heads": 9, "num_hidden_layers": 1, "hidden_size": 576}
    config |= {"max_position_embeddings": 4096}
    scaled = {"rope_type": "linear", "factor": 4.0}
    for rope in (
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_scaling": scaled},
        {"rope_parameters": {"full_attention": scaled}},
    ):
        text = json.dumps({**config, **rope})
        (tmp_path / "config.json").write_text(text)
        size = fit.model_size(tmp_path)
        assert size is not None and size.max_len is None and size.weights_gib == 0


def check(
    gpu_memory_gib: float,
    tp: int = 1,
    extra_args: tuple[str, ...] = (),
    *,
    pp: int = 1,
    max_model_len: int = 2668,
    size: fit.ModelSize = LLAMA,
    env: dict[str, str] | None = None,
) -> str:
    engine = Engine(
        extra_args=extra_args,
        pipeline_parallel_size=pp,
        max_model_len=max_model_len,
        max_num_seqs=64,
        max_num_batched_tokens=1024,
        tensor_parallel_size=tp,
    )
    site = Site(name="s", device=Device.CUDA, env=env or {})
    errors = Errors()
    node = SiteNode(name="n", gpus=1, gpu_memory_gib=gpu_memory_gib)
    fit.check_model(size, engine, site, [node], errors)
    return "\n".join(map(str, errors))


def test_a_large_model_gets_a_hint() -> None:
    assert check(24) == ""
    assert check(0) == ""  # unknown, so not checked
    assert "--set engine.tensor_parallel_size=2" in check(16)
    assert check(16, tp=2) == ""
    assert "vLLM uses 12.0 of 24 GiB" in check(24, extra_args=("--gpu-memory-utilization=0.5",))


def test_tensor_parallelism_divides_the_heads() -> None:
    text = check(24, tp=3)
    assert "does not divide the model's 32 attention heads\nhint: " in text
    assert text.endswith("with N in 1, 2, 4, 8, 16, 32")
    assert check(24, tp=16) == ""  # two ranks share each of 8 key-value heads
    text = check(24, tp=6, size=msgspec.structs.replace(LLAMA, num_heads=12, num_kv_heads=4))
    assert "divide the model's 4 key-value heads, nor is it a multiple of them" in text
    assert text.endswith("with N in 1, 2, 4, 12")
    assert "exceeds the model's 32 layers" in check(24, pp=33)


def test_the_longest_sequence_is_the_models() -> None:
    assert check(80, max_model_len=131_072) == ""
    text = check(80, max_model_len=131_073)
    assert "engine.max_model_len 131073 exceeds the model's 131072" in text
    assert "--set engine.max_model_len=131072" in text
    assert check(80, max_model_len=131_073, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}) == ""
    unknown = msgspec.structs.replace(LLAMA, max_len=None)
    assert check(80, max_model_len=131_073, size=unknown) == ""


def test_refuses_a_wall_limit_over_the_sites() -> None:
    errors = Errors()
    duration.time_min(Site(name="s", slurm=SiteSlurm(time_min=90, max_time_min=60)), 60, errors)
    assert "site.slurm.time_min 90 exceeds site.slurm.max_time_min 60" in str(errors[0])
    assert len(errors) == 1 and str(errors[0]).endswith("--set site.slurm.time_min=60")
    at_the_limit = Site(name="s", slurm=SiteSlurm(time_min=60, max_time_min=60))
    errors = Errors()
    assert duration.time_min(at_the_limit, 60, errors) == 60 and not errors


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
    assert duration.phase_s(scenario, Mode.PERFORMANCE, settings, 13_368) == pytest.approx(seconds)


def test_refuses_a_run_over_the_sites_limit() -> None:
    site = Site(name="s", slurm=SiteSlurm(max_time_min=60))
    errors = Errors()
    assert duration.time_min(site, 600, errors) == 27 and not errors
    duration.time_min(site, 13_368, errors)
    text = str(errors[0])
    assert "needs about" in text and "enough for" in text and "minutes of measuring\n" in text


def test_a_plan_asks_slurm_for_gpus_and_time() -> None:
    plan = plan_of("smollm2-135m-news", site="devcluster", nodes="all")
    assert plan.slurm is not None and plan.slurm.gres == "gpu:a30:1"
    assert [node.name for node in plan.nodes] == ["jw2", "jw3"]
    assert 3 < plan.slurm.time_min < 20
    with pytest.raises(InputError, match="needs about"):
        plan_of("smollm2-135m-news", site="devcluster", sets=("site.slurm.time_min=4",))
