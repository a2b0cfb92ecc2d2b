"""Plans: what is official, who gets which cores, and what an engine is started with."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from cli import ROOT
from plans import plan_of

from sut.errors import InputError
from sut.launch import members
from sut.launch.request import RunRequest
from sut.plan import plan as plans
from sut.plan.benchmark import Preset, Scenario
from sut.plan.config import Campaign, CampaignRun
from sut.plan.plan import Part, Plan, Replica
from sut.plan.site import Device
from sut.serving import process

SITE = """
name: here
num_replicas: {num_replicas}
device: {device}
models: {{Llama-3.1-8B-Instruct: /models/llama}}
datasets: {{cnn_eval.json: /data/cnn_eval.json, sample_cnn_eval_5000.json: /data/edge.json}}
"""


def llama(
    folder: Path,
    *,
    preset: Preset = Preset.OFFICIAL,
    scenario: Scenario = Scenario.SERVER,
    benchmark: str = "llama3.1-8b",
    device: str = "cuda",
    num_replicas: int = 1,
    sets: tuple[str, ...] = (),
) -> Plan:
    site = folder / "site.yaml"
    site.write_text(SITE.format(device=device, num_replicas=num_replicas))
    return plan_of(benchmark, scenario, preset=preset, site=str(site), sets=sets)


def launch_of(replica: int, part: int = 0) -> process.Launch:
    handshake = process.Address("10.0.0.1", 4321)
    return process.Launch(replica=replica, part=part, handshake=handshake, host="10.0.0.2")


def test_official_preset_of_official_benchmark_is_official(tmp_path: Path) -> None:
    plan = llama(tmp_path)
    assert plan.official and plan.not_official_because == ()
    # Everything but the load is mlperf.conf's.
    assert plan.user_conf() == "llama3_1-8b.Server.target_qps = 2\n"


def test_a_campaigns_changes_are_not_the_command_lines() -> None:
    runs = (CampaignRun(name="a", nodes="", sets=("min_query_count=10",)),)
    campaign = Campaign(name="c", benchmark="replay", site="local", runs=runs)
    typed = RunRequest(sets=("scenarios.server.min_duration_ms=7",))
    ((_, plan, *_),) = members.plan(campaign, typed)
    assert plan.loadgen_settings.min_query_count == 10
    *_, on_line, in_file = plan.not_official_because
    assert on_line == "changed on the command line: scenarios.server.min_duration_ms=7"
    assert in_file == "changed in the campaign: scenarios.server.min_query_count=10"
    ((_, plan, *_),) = members.plan(campaign, RunRequest())
    assert "command line" not in " ".join(plan.not_official_because)


@pytest.mark.parametrize("host", ["", "*", "0.0.0.0", "::"])
def test_refuses_to_listen_on_all_interfaces(host: str) -> None:
    with pytest.raises(InputError, match="no address of one network"):
        plan_of("replay", sets=[f"site.host='{host}'"])


@pytest.mark.parametrize(
    "change",
    [
        "engine.max_num_seqs=32",
        "site.num_replicas=2",
        "scenarios.server.target_qps=3",
    ],
)
def test_a_submitters_choices_stay_official(tmp_path: Path, change: str) -> None:
    assert llama(tmp_path, sets=(change,)).official


@pytest.mark.parametrize(
    "change",
    [
        "scenarios.server.min_duration_ms=1",
        "scenarios.server.ttft_latency_ms=9000",
        "generation.max_tokens=64",
        "dataset.num_samples=100",
        'dataset.sha256=""',
        "engine.kind=replay",
        'engine.extra_args=["--enable-prefix-caching"]',
    ],
)
def test_changing_what_is_measured_is_not_official(tmp_path: Path, change: str) -> None:
    plan = llama(tmp_path, sets=(change,))
    assert not plan.official and plan.not_official_because


def test_a_copied_official_benchmark_is_not_official(tmp_path: Path) -> None:
    copy = tmp_path / "llama3.1-8b.yaml"
    copy.write_text((ROOT / "configs/benchmarks/llama3.1-8b.yaml").read_text())
    assert not llama(tmp_path, benchmark=str(copy)).official


@pytest.mark.parametrize("preset", [Preset.QUICK, Preset.SMOKE])
def test_a_lower_preset_is_not_official(tmp_path: Path, preset: Preset) -> None:
    assert not llama(tmp_path, preset=preset).official


def test_interactive_is_server_under_its_own_model_name(tmp_path: Path) -> None:
    plan = llama(tmp_path, scenario=Scenario.INTERACTIVE)
    assert (plan.scenario.loadgen, plan.loadgen_name) == ("Server", "llama3_1-8b-interactive")


def test_the_digests_of_records_stay() -> None:
    """A field that a plan gains must not change the digest of the plans that were recorded."""
    known = "87d07fa7bf639feb7979fee3b7a8d742cc78f714824fd1ac566df9c3055200b0"
    assert plan_of("replay").digest() == known
    assert plan_of("replay", sets=("engine.max_num_seqs=32",)).digest() != known


def test_equal_plans_have_equal_digests(tmp_path: Path) -> None:
    plan = llama(tmp_path)
    same = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
    assert same == plan and same.digest() == plan.digest()
    assert llama(tmp_path, sets=("engine.max_num_seqs=32",)).digest() != plan.digest()


def test_cpu_replicas_get_disjoint_cores() -> None:
    plan = plan_of("smollm2-135m-news", sets=("site.num_replicas=2",), usable_cpus=(3, 4, 5, 6, 7))
    assert [replica.parts[0].cpus for replica in plan.replicas] == [(3, 4), (5, 6)]


def test_gpu_replicas_get_disjoint_visible_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c,GPU-d")
    plan = llama(tmp_path, num_replicas=2, sets=("engine.tensor_parallel_size=2",))
    visible = [
        process.environment(plan, launch_of(replica.index))["CUDA_VISIBLE_DEVICES"]
        for replica in plan.replicas
    ]
    assert plan.device is Device.CUDA and visible == ["GPU-a,GPU-b", "GPU-c,GPU-d"]


def test_a_cpu_engine_is_bound_to_its_cores() -> None:
    plan = plan_of("smollm2-135m-news", sets=("site.cpu.cpus=[1]", "site.env={X: y}"))
    added = process.environment(plan, launch_of(0))
    assert added["VLLM_CPU_OMP_THREADS_BIND"] == "1"
    assert added["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert added["VLLM_DP_MASTER_IP"] == "10.0.0.1"
    assert added["X"] == "y" and "CUDA_VISIBLE_DEVICES" not in added


@pytest.mark.parametrize(
    ("cores", "bound"), [((), "all"), ((2, 3), "2|3"), ((2, 3, 4, 5, 6), "2,3|4,5")]
)
def test_each_rank_of_a_cpu_engine_has_its_cores(cores: tuple[int, ...], bound: str) -> None:
    plan = plan_of("smollm2-135m-news")
    engine = msgspec.structs.replace(plan.engine, tensor_parallel_size=2)
    replica = Replica(index=0, parts=(Part(node=0, cpus=cores),))
    plan = msgspec.structs.replace(plan, engine=engine, replicas=(replica,))
    assert process.environment(plan, launch_of(0))["VLLM_CPU_OMP_THREADS_BIND"] == bound
    fewer = Replica(index=0, parts=(Part(node=0, cpus=(2,)),))
    with pytest.raises(AssertionError):
        process.environment(msgspec.structs.replace(plan, replicas=(fewer,)), launch_of(0))


def test_vllm_is_headless_and_without_prefix_caching(tmp_path: Path) -> None:
    plan = llama(tmp_path, sets=('engine.extra_args=["--quantization", "fp8"]',))
    folder = Path("/models/with space/llama")
    argv = process.argv(plan, launch_of(0), folder)
    pairs = dict(itertools.pairwise(argv))
    assert argv[1:5] == ["-m", "sut.serving.vllm_headless", str(folder), "--headless"]
    assert pairs["--data-parallel-address"] == "10.0.0.1"
    assert pairs["--data-parallel-rpc-port"] == "4321"
    assert pairs["--max-model-len"] == "2668" and pairs["--dtype"] == "bfloat16"
    assert "--no-enable-prefix-caching" in argv and "--enforce-eager" not in argv
    assert argv[-2:] == ["--quantization", "fp8"]


def test_one_rank_on_the_cpu_is_one_process() -> None:
    def module(*sets: str) -> str:
        plan = plan_of("smollm2-135m-news", sets=sets)
        return process.argv(plan, launch_of(0), Path("/model"))[2]

    assert module() == "sut.serving.vllm_core"
    assert module("engine.tensor_parallel_size=2") == "sut.serving.vllm_headless"


def test_reports_every_obstacle_at_once(tmp_path: Path) -> None:
    sets = ("engine.max_model_len=100", "generation.min_tokens=1000")
    with pytest.raises(InputError) as error:
        plan_of("llama3.1-8b", Scenario.SINGLE_STREAM, sets=sets)
    text = str(error.value)
    for part in (
        "no scenario singlestream",
        "no path for the model 'Llama-3.1-8B-Instruct'",
        "no path for the data set 'cnn_eval.json'",
        "min_tokens 1000 exceeds",
        "max_model_len 100 is less than",
    ):
        assert part in text
    assert "target_qps" not in text  # which nobody gave


def test_synthetic_data_has_no_references() -> None:
    with pytest.raises(InputError, match="a synthetic data set has no references"):
        plan_of("replay", sets=("engine.replay.answers=references",))


def test_numbers_reach_loadgen_in_full() -> None:
    plan = plan_of("replay", sets=("scenarios.server.target_qps=0.1234567890123",))
    assert "replay.Server.target_qps = 0.1234567890123\n" in plan.user_conf()


def test_a_sites_load_counts_per_replica() -> None:
    one = plan_of("smollm2-135m-news", site="devcluster", nodes="jw2")
    both = plan_of("smollm2-135m-news", site="devcluster", nodes="all")
    assert one.loadgen_settings.target_qps == 2 and both.loadgen_settings.target_qps == 4
    change = "scenarios.server.target_qps=9"
    given = plan_of("smollm2-135m-news", site="devcluster", nodes="all", sets=(change,))
    assert given.loadgen_settings.target_qps == 9


@pytest.mark.parametrize(
    ("benchmark", "changes", "text"),
    [
        ("replay", ('site.interface=""',), "--set site.interface=eth0"),
        (
            "smollm2-135m-news",
            ("engine.pipeline_parallel_size=2",),
            "--set engine.enforce_eager=false",
        ),
    ],
)
def test_refuses_what_fails_on_two_nodes(
    benchmark: str, changes: tuple[str, ...], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        plan_of(benchmark, site="devcluster", nodes="all", sets=changes)


SEEDED = ("generation.temperature=1", "generation.seed=42")


@pytest.mark.parametrize("option", ["--no-enable-chunked-prefill", "--disable-chunked-prefill"])
def test_refuses_seeds_on_a_cpu_that_splits_prompts(option: str) -> None:
    with pytest.raises(InputError, match=r"--set generation\.seed=null"):
        plan_of("smollm2-135m-news", sets=SEEDED)
    whole = f'engine.extra_args=["{option}"]'
    for other in (whole, "generation.seed=null", "generation.temperature=0", "engine.kind=replay"):
        plan_of("smollm2-135m-news", sets=(*SEEDED, other))


@pytest.mark.parametrize("prompt", ["''", "Summarize:", "{ input }"])
def test_refuses_a_prompt_without_the_text(prompt: str) -> None:
    with pytest.raises(InputError, match=r"dataset\.prompt has no {input}.*\n.*dataset\.prompt="):
        plan_of("smollm2-135m-news", sets=[f"dataset.prompt={prompt!r}"])


@pytest.mark.parametrize(
    ("benchmark", "changes", "refused"),
    [
        ("replay", ["use_token_latencies=null"], True),
        ("replay", ["use_token_latencies=false"], True),
        ("replay", ["use_token_latencies=false", "ttft_latency_ms=null"], True),  # TPOT's
        ("replay", ["use_token_latencies=true"], False),
        ("smollm2-135m-news", [], False),
    ],
)
def test_refuses_limits_that_loadgen_ignores(
    benchmark: str, changes: list[str], refused: bool
) -> None:
    sets = [f"scenarios.server.{change}" for change in changes]
    if not refused:
        assert plan_of(benchmark, sets=sets)
        return
    with pytest.raises(InputError, match="t_latency_ms has no effect without use_token_latencies"):
        plan_of(benchmark, sets=sets)


@pytest.mark.parametrize("key", ["scenarios.server.target_qps ", "presets.smoke.server.target_qps"])
def test_a_set_load_overrides_the_sites(key: str) -> None:
    plan = plan_of("smollm2-135m-news", site="devcluster", nodes="jw2", sets=(f"{key}=5",))
    assert plan.loadgen_settings.target_qps == 5


@pytest.mark.parametrize("name", ["performance", "performance-2", "accuracy", "compliance"])
def test_a_test_is_found_by_its_name(name: str) -> None:
    assert plans.Test.named(name).name == name


@pytest.mark.parametrize("name", ["performance-1", "performance-02", "performance-0", "all", ""])
def test_refuses_a_name_that_no_test_has(name: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        plans.Test.named(name)
