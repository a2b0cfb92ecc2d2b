"""Engine arguments that vLLM or the plan would refuse, found before anything is queued."""

from __future__ import annotations

import msgspec
import pytest

from sut.errors import Errors, InputError
from sut.launch.request import RunRequest, make_plan
from sut.machine import environment
from sut.plan import engine_args
from sut.plan.benchmark import Scenario
from sut.serving import vllm_layouts
from sut.serving.wire import VLLM_VERSION
from tools import vllm_options


def found(*extra_args: str, version: str | None = VLLM_VERSION) -> str:
    errors = Errors()
    engine_args.check(extra_args, errors, version)
    return "\n".join(map(str, errors))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("--max-num-seqs", "8"), "engine.max_num_seqs"),
        (("--max-num-seqs=8",), "engine.max_num_seqs"),
        (("--max_num_seqs=8",), "engine.max_num_seqs"),
        (("--max-num-batched-tokens=1",), "engine.max_num_batched_tokens"),
        (("-tp", "2"), "engine.tensor_parallel_size"),
        (("--pipeline-parallel-size=2",), "engine.pipeline_parallel_size"),
        (("--dtype=float16",), "engine.dtype"),
        (("--no-enforce-eager",), "engine.enforce_eager"),
        (("--quantization", "fp8", "--max-model-len", "64"), "engine.max_model_len"),
    ],
)
def test_refuses_an_option_that_has_a_key(arguments: tuple[str, ...], key: str) -> None:
    text = found(*arguments)
    assert f"contradicts {key}: " in text and f"--set {key}=VALUE" in text
    assert text.count("hint:") == 1


@pytest.mark.parametrize("word", ["--headless", "--data-parallel-size=2", "--nnodes", "-dp"])
def test_refuses_an_option_that_the_nodes_set(word: str) -> None:
    assert f"{word} depends on the run's nodes" in found(word)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("--enable-pre", "--enable-pre is short for --enable-prefix-caching: write it in full"),
        ("--enable_pre", "is short for --enable-prefix-caching"),
        ("--max-num-seq=8", "is short for --max-num-seqs"),
        ("--kv-tr.kv_role=kv_both", "is short for --kv-transfer-config"),
        ("--kv-off", "is short for --kv-offloading-backend or --kv-offloading-size"),
    ],
)
def test_refuses_an_abbreviation(word: str, text: str) -> None:
    assert text in found(word)


@pytest.mark.parametrize(
    "arguments", [("--config", "/tmp/vllm.yaml"), ("--config=x",), ("--tool_parser_plugin=x.py",)]
)
def test_refuses_what_another_file_decides(arguments: tuple[str, ...]) -> None:
    assert "not on record\nhint: leave it out" in found(*arguments)


@pytest.mark.parametrize(
    "word",
    [
        "--enable-prefix-caching",
        "--enable_prefix_caching",
        "--speculative-config={}",
        "--speculative_config.method=ngram",
        "-sc={}",
        "--spec-model=x",
        "--kv-transfer-config={}",
        "--kv-transfer-config.kv_role=kv_both",
        "--kv-offloading-size=4",
    ],
)
def test_names_what_mlperf_forbids(word: str) -> None:
    assert engine_args.forbidden(("--seed", "1", word)) == [word]
    assert found(word) == ""


def test_names_nothing_else_as_forbidden() -> None:
    given = ("--no-enable-prefix-caching", "--kv-cache-dtype=fp8", "--seed=1")
    assert engine_args.forbidden(given) == []


def test_other_options_are_passed_on() -> None:
    given = ("--quantization", "fp8", "--gpu-memory-utilization=0.8", "-cc.mode=2", "-O3")
    given += ("-O", "2")
    given += ("--kv_cache_dtype=fp8", "--hf-overrides.rope_scaling.factor", "2", "--seed", "-1")
    given += ("--lora-modules", "a=/a", "b=/b", "--quantization-config", "{}", "--log-level=info")
    assert found(*given, "--disable-custom-all-reduce", "--model-impl=auto") == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("--quantisation", "fp8"),
            "has no option --quantisation (did you mean '--quantization'?)",
        ),
        (("--kv-cache-dtype", "fp9"), "--kv-cache-dtype fp9: not one of vLLM's choices"),
        (("--kv-cache-dtype=fp9",), "hint: choose one of: auto, "),
        (("--quantization",), "--quantization needs a value"),
        (("--quantization", "--headless"), "--quantization needs a value"),
        (("--disable-custom-all-reduce=1",), "--disable-custom-all-reduce takes no value"),
        (("fp8",), "'fp8' belongs to no option"),
        (("--disable-custom-all-reduce", "fp8"), "'fp8' belongs to no option"),
        (("--quantization", "fp8", "fp8"), "'fp8' belongs to no option"),
        (("--max-nu", "8"), "--max-nu is short for --max-num-active-seqs or "),
        (("-x",), "has no option -x"),
        (("-xx.mode=2",), "has no option -xx"),
    ],
)
def test_refuses_what_vllms_parser_would(arguments: tuple[str, ...], text: str) -> None:
    assert text in found(*arguments)


def test_reports_every_option_once() -> None:
    text = found("--quantisation", "fp8", "--max-num-seqs", "8", "--kv-cache-dtype", "fp9")
    assert text.count("engine.extra_args") == 3


@pytest.mark.parametrize("version", engine_args.tables())
def test_knows_the_options_that_it_names(version: str) -> None:
    options = engine_args.tables()[version].keys()
    assert {*engine_args.KEYS, *engine_args.OURS} - {"--model"} <= options
    assert {*engine_args.FORBIDDEN, *engine_args.FROM_ELSEWHERE} <= options


def test_has_the_options_of_every_tested_version() -> None:
    assert list(engine_args.tables()) == list(vllm_layouts.tested())


@pytest.mark.parametrize(
    ("word", "has", "lacks"),
    [
        ("--watchdog-config={}", "0.33.0", "0.32.0"),
        ("--disable-chunked-prefill", "0.33.0", "0.32.0"),
        ("--no-enable-chunked-prefill", "0.32.0", "0.33.0"),
    ],
)
def test_an_option_is_judged_by_the_engines_version(word: str, has: str, lacks: str) -> None:
    name = word.partition("=")[0]
    assert found(word, version=has) == ""
    assert f"vLLM {lacks} has no option {name}; {has} has\n" in found(word, version=lacks)
    for unknown in (None, "0.99.0"):  # any tested version's
        assert found(word, version=unknown) == ""


def test_a_run_in_this_python_is_judged_by_its_version() -> None:
    if not environment.versions(environment.VLLM):
        pytest.skip("vLLM is not installed")
    newer = ("""engine.extra_args=["--watchdog-config={}"]""",)
    request = RunRequest(benchmark="smollm2-135m-news", scenario=Scenario.SERVER, sets=newer)
    with pytest.raises(InputError, match=f"vLLM {VLLM_VERSION} has no option --watchdog-config"):
        make_plan(msgspec.structs.replace(request, site="local"))
    make_plan(msgspec.structs.replace(request, site="devcluster"))  # in an image


def test_a_choice_of_one_version_is_a_choice_where_the_version_is_unknown() -> None:
    given = ("--moe-backend", "aiter_triton_mxfp4_mxfp4")
    assert "not one of vLLM's choices" in found(*given)
    assert found(*given, version="0.33.0") == found(*given, version=None) == ""
    free = ("--kv-cache-dtype", "of_a_plugin")  # 0.33.0 takes any
    assert "not one of vLLM's choices" in found(*free) and found(*free, version=None) == ""
    assert "vLLM 0.32.0 and 0.33.0 have no option --x" in found("--x", version=None)


def test_versions_agree_on_how_many_values_an_option_takes() -> None:
    older, newer = engine_args.tables().values()
    assert all(older[name].values == newer[name].values for name in older.keys() & newer.keys())


@pytest.mark.vllm
def test_the_options_are_those_of_the_installed_vllm() -> None:
    pytest.importorskip("vllm")
    assert engine_args.OPTIONS_FILE.read_text() == vllm_options.text()
