"""gpt-oss' architecture and sampling settings, with random weights, on vLLM's CPU backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import environment, latest, set_arguments, submit
from plans import plan_of
from test_vllm import OF_ENGINES

from sut.errors import RunError
from sut.inputs.cache import cache_dir
from sut.plan import config
from sut.plan.document import read
from sut.results import answers
from sut.results.phase_record import PhaseRecord
from sut.rundir import RunDir
from sut.serving import wire
from tools import tiny_moe

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

WHOLE_PROMPTS = 'engine.extra_args=["--no-enable-chunked-prefill"]'
SEED = "accuracy_test.generation.seed=42"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    tiny_moe.make(made)
    return made


@pytest.fixture(scope="module")
def env(folder: Path) -> Iterator[dict[str, str]]:
    """Runs in it share one engine."""
    shared = environment(XDG_CACHE_HOME=str(folder / "cache"), SUT_CACHE=str(cache_dir()))
    yield shared
    assert submit(folder, "stop", "--all", command="engines", env=shared).returncode == 0


def run(folder: Path, env: dict[str, str], scenario: str, mode: str, *sets: str) -> PhaseRecord:
    """The only test of a run."""
    done = submit(
        folder,
        *("--config", str(folder / "benchmark.yaml"), "--site", str(folder / "site.yaml")),
        *("--scenario", scenario, "--mode", mode, "--keep-engine", "10"),
        *set_arguments([WHOLE_PROMPTS, *sets]),
        env=env,
        timeout_s=500,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (phase,) = latest(folder).phases
    assert phase.loadgen_errors == (), done.stdout
    return phase


def tokens_of(folder: Path) -> dict[int, tuple[int, ...]]:
    """The answers of the newest accuracy test, by sample."""
    found = answers.read(RunDir(folder / "runs" / "latest").loadgen("accuracy"))
    return {answer.sample: answer.tokens for answer in found}


def test_names_a_dtype_that_the_weights_cannot_have(tmp_path: Path) -> None:
    tiny_moe.make_model(tmp_path, mxfp4=True)
    plan = plan_of("smollm2-135m-news", sets=["engine.dtype=float32"])
    refused = f"the model {tmp_path}: torch.float32 is not supported for quantization method"
    with pytest.raises(RunError, match=rf"(?s){refused}.*\nhint: .*--set engine\.dtype=bfloat16"):
        wire.encode(plan, [[1, 2]], tmp_path)


def test_the_sampling_is_the_official_benchmarks(folder: Path) -> None:
    official = read(config.shipped("benchmarks", tiny_moe.OFFICIAL))
    tiny = read(folder / "benchmark.yaml")
    sampling = {"temperature": 1, "top_p": 1, "top_k": -1, "seed": None}
    for each in (official, official["accuracy_test"], tiny, tiny["accuracy_test"]):
        assert each["generation"] == each["generation"] | sampling


def test_a_run_is_judged(folder: Path, env: dict[str, str]) -> None:
    phase = run(folder, env, "offline", "performance")
    assert phase.verdict.verdict == "VALID", phase.verdict
    assert {check.code for check in phase.verdict.checks if check.met} >= OF_ENGINES
    log = (folder / "runs" / "latest" / "logs" / "replica-0.log").read_text()
    assert "GptOssForCausalLM" in log and "CPUUnquantizedExperts MoE backend" in log


def test_seeded_answers_are_the_same_in_every_scenario(folder: Path, env: dict[str, str]) -> None:
    found = []
    for scenario, seeds in (("offline", [SEED]), ("server", [SEED]), ("offline", [])):
        phase = run(folder, env, scenario, "accuracy", *seeds)
        assert "accuracy_exact_match" in {reason.code for reason in phase.verdict.reasons}
        found.append(tokens_of(folder))
    offline, server, unseeded = found
    assert len(offline) == tiny_moe.SAMPLES["accuracy"] and offline == server
    assert unseeded != offline
    lengths = {len(tokens) for tokens in offline.values()}
    assert len(lengths) > 3 and max(lengths) <= tiny_moe.MAX_TOKENS["accuracy"]
