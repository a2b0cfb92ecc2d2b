"""Whether a run fits into GPU memory and the wall limit, checked before it is submitted."""

from __future__ import annotations

import msgspec
import pytest
from plans import plan_of

from sut.errors import Errors, InputError
from sut.plan import duration, fit
from sut.plan.alternatives import Alternatives
from sut.plan.benchmark import Dtype, Engine, Scenario, ScenarioSettings
from sut.plan.kv_cache import KvCache, sequence_bytes
from sut.plan.plan import Mode
from sut.plan.site import Device, Site, SiteNode, SiteSlurm

LLAMA = fit.ModelSize(
    weights_gib=14.96,
    weight_bytes=2,
    kv=KvCache(heads=8, values=2 * 128, layers=32),
    num_heads=32,
    num_kv_heads=8,
    num_layers=32,
    max_len=131_072,
)


def engine_of(
    tp: int = 1,
    extra_args: tuple[str, ...] = (),
    *,
    pp: int = 1,
    max_model_len: int = 2668,
    dtype: Dtype = Dtype.BFLOAT16,
) -> Engine:
    return Engine(
        extra_args=extra_args,
        pipeline_parallel_size=pp,
        max_model_len=max_model_len,
        max_num_seqs=64,
        max_num_batched_tokens=1024,
        tensor_parallel_size=tp,
        dtype=dtype,
    )


def check(
    gpu_memory_gib: float,
    tp: int = 1,
    extra_args: tuple[str, ...] = (),
    *,
    pp: int = 1,
    max_model_len: int = 2668,
    dtype: Dtype = Dtype.BFLOAT16,
    size: fit.ModelSize = LLAMA,
    env: dict[str, str] | None = None,
    check_fit: bool = True,
    num_nodes: int = 0,
) -> str:
    """``num_nodes``: of the site; 0 where it has no list of them."""
    engine = engine_of(tp, extra_args, pp=pp, max_model_len=max_model_len, dtype=dtype)
    node = SiteNode(name="n", gpus=1, gpu_memory_gib=gpu_memory_gib)
    nodes = (node,) * num_nodes
    site = Site(name="s", device=Device.CUDA, env=env or {}, check_fit=check_fit, nodes=nodes)
    errors = Errors()
    others = Alternatives(size=size, engine=engine, site=site, nodes="", usable_cpus=())
    fit.check_model(size, engine, site, [node], errors, others.hint)
    return "\n".join(map(str, errors))


def test_a_large_model_gets_a_hint() -> None:
    assert check(24) == ""
    assert check(0) == ""  # unknown, so not checked
    assert "--set engine.tensor_parallel_size=2" in check(16)
    assert check(16, tp=2) == ""
    assert "vLLM uses 12.0 of 24 GiB" in check(24, extra_args=("--gpu-memory-utilization=0.5",))


def test_a_refusal_can_be_overridden() -> None:
    refused = check(16, max_model_len=131_073)
    assert refused.count("--set site.check_fit=false") == 1
    assert check(16, max_model_len=131_073, check_fit=False) == ""


def test_weights_stored_in_float32_are_halved() -> None:
    stored = msgspec.structs.replace(LLAMA, weights_gib=29.92, weight_bytes=4)
    assert check(24, size=stored) == ""
    assert "29.9 GiB of weights" in check(24, size=stored, dtype=Dtype.FLOAT32)
    doubled = check(24, dtype=Dtype.FLOAT32)
    assert "29.9 GiB of weights" in doubled and "0.7 GiB of KV cache" in doubled


def test_quantized_weights_have_their_files_size() -> None:
    stored = msgspec.structs.replace(LLAMA, weights_gib=5.3, weight_bytes=0, quantized=True)
    awq = ("--quantization", "awq_marlin")
    assert "5.3 GiB of weights" in check(4, size=stored)
    assert "5.3 GiB of weights" in check(4, extra_args=awq, size=stored)


def test_what_is_unknown_is_not_checked() -> None:
    def described(size: fit.ModelSize | None, *extra_args: str, gib: float = 24) -> fit.Fit:
        site = Site(name="s", device=Device.CUDA, slurm=SiteSlurm())
        node = SiteNode(name="n", gpus=1, gpu_memory_gib=gib)
        found = fit.describe(size, engine_of(extra_args=extra_args), site, [node])
        assert found is not None
        return found

    assert described(LLAMA).not_checked == () and described(LLAMA).gib == pytest.approx(
        15.29, abs=0.01
    )
    assert described(LLAMA).text == (
        "15.3 GiB per GPU (15.0 GiB of weights and 0.3 GiB of KV cache for a sequence of 2668 "
        "tokens, on 1 GPU); vLLM uses 22.1 of 24 GiB"
    )
    online = described(LLAMA, "--quantization", "fp8")
    assert online.not_checked == ("the size of the weights: --quantization changes it",)
    assert check(4, extra_args=("--quantization", "fp8")) == ""
    other = msgspec.structs.replace(LLAMA, kv=None, kv_unknown="the layout of x is not known")
    assert described(other).not_checked == (
        "the size of the KV cache: the layout of x is not known",
    )
    assert "it needs at least 15.0 GiB per GPU (15.0 GiB of weights, on" in check(16, size=other)
    none = msgspec.structs.replace(LLAMA, weights_gib=None)
    assert "safetensors files are missing" in described(none).not_checked[0]
    assert described(LLAMA, gib=0).not_checked == (
        "the GPUs' memory: site s has no gpu_memory_gib for node n",
    )
    assert "cannot read the model's config.json" in described(None).not_checked[0]
    off = Site(name="s", device=Device.CUDA, check_fit=False)
    found = fit.describe(LLAMA, engine_of(), off, [])
    assert found is not None and found.not_checked == ("site.check_fit is false",)
    assert fit.describe(LLAMA, engine_of(), Site(name="s"), []) is None


def test_the_hint_finds_the_ranks_that_fit() -> None:
    assert "--set engine.tensor_parallel_size=8;" in check(4)  # 2.0 GiB a GPU of 3.7; 4: 3.8
    assert "--set engine.tensor_parallel_size=8;" in check(4, num_nodes=8)
    few = check(4, num_nodes=7)
    assert "it fits on 8 GPUs, and site s has 7: use GPUs with more memory" in few
    # Every rank keeps the whole latent vector: more ranks do not help.
    latent = KvCache(heads=0, values=576, layers=61)
    mla = msgspec.structs.replace(LLAMA, kv=latent, num_kv_heads=0, max_len=None)
    text = check(16, size=mla, max_model_len=10**6)
    assert "use GPUs with more memory, or a shorter engine.max_model_len" in text


@pytest.mark.parametrize("tp", [1, 2, 8, 16])
def test_ranks_share_key_value_heads(tp: int) -> None:
    """Two ranks that share a head keep it twice."""
    expected = 32 * 2672 * 256 * 2 * max(1, 8 // tp)
    assert LLAMA.kv is not None
    assert sequence_bytes(LLAMA.kv, engine_of(tp)) == expected


def test_the_cache_depends_on_vllms_options() -> None:
    assert LLAMA.kv is not None
    plain = sequence_bytes(LLAMA.kv, engine_of())
    assert sequence_bytes(LLAMA.kv, engine_of(extra_args=("--kv-cache-dtype", "fp8"))) == plain / 2
    assert sequence_bytes(LLAMA.kv, engine_of(dtype=Dtype.FLOAT32)) == plain * 2
    of_checkpoint = msgspec.structs.replace(LLAMA.kv, dtype="fp8")
    assert sequence_bytes(of_checkpoint, engine_of()) == plain / 2
    explicit = engine_of(extra_args=("--kv-cache-dtype=bfloat16",))
    assert sequence_bytes(of_checkpoint, explicit) == plain
    blocks = engine_of(extra_args=("--block-size", "64"))
    assert sequence_bytes(LLAMA.kv, blocks) == plain / 2672 * 2688
    with pytest.raises(ValueError, match="its format is nvfp4"):
        sequence_bytes(LLAMA.kv, engine_of(extra_args=("--kv-cache-dtype", "nvfp4")))


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


def test_stages_split_the_layers() -> None:
    assert LLAMA.kv is not None
    one, two = (sequence_bytes(LLAMA.kv, engine_of(pp=pp)) for pp in (1, 2))
    assert two == one / 2
    odd = msgspec.structs.replace(LLAMA.kv, layers=33)
    assert sequence_bytes(odd, engine_of(pp=2)) == two / 16 * 17


def test_a_window_ends_with_the_manager_of_two_kinds() -> None:
    both = KvCache(heads=8, values=256, layers=8, sliding_layers=24, window=1024)
    off = ("--disable-hybrid-kv-cache-manager",)
    long = {"max_model_len": 100_000}
    windowed = sequence_bytes(both, engine_of(**long))
    assert LLAMA.kv is not None
    assert sequence_bytes(both, engine_of(1, off, **long)) == sequence_bytes(
        LLAMA.kv, engine_of(**long)
    )
    assert windowed < 0.3 * sequence_bytes(LLAMA.kv, engine_of(**long))
    every = msgspec.structs.replace(both, layers=0, sliding_layers=32)
    assert sequence_bytes(every, engine_of(1, off, **long)) == sequence_bytes(
        every, engine_of(**long)
    )
