"""Encoded requests: cached under everything that decides them, and read without vLLM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cli import environment
from plans import plan_of

from sut.inputs import cache, model, wheels
from sut.plan.plan import Plan
from sut.serving import requests, wire

BENCHMARK = "smollm2-135m-news"
PROMPTS = [[11, 12, 13], [14, 15]]
# What the head does before it connects to engines. Prints the large packages that it imported.
HEAD = """
import sys
from pathlib import Path
import msgspec
from sut.inputs import dataset
from sut.plan.plan import load_plan
from sut.run import __main__
from sut.rundir import RunDir
from sut.serving import requests
from sut.serving.node_check import NodeCheck

run_dir, model_path = RunDir(Path(sys.argv[1])), Path(sys.argv[2])
plan = load_plan(run_dir.plan)
check = NodeCheck(plan, run_dir, 0, "127.0.0.1", model_path)
check.run()
assert check.report is not None and all(each.ok for each in check.report.checks), check.report
encoded = requests.load(plan, dataset.load(plan, model_path).prompts, model_path)
(run_dir.root / "requests").write_bytes(msgspec.msgpack.encode(encoded))
large = {"matplotlib", "nltk", "numpy", "tokenizers", "torch", "transformers", "vllm"}
print("imported:", *sorted(large & sys.modules.keys()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, enough to be hashed."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"eos_token_id": 2}')
    return folder


def key_of(plan: Plan, folder: Path, prompts: list[list[int]] = PROMPTS) -> str:
    return requests._key(plan, prompts, folder)


@pytest.mark.parametrize(
    "change",
    [
        "generation.max_tokens=9",
        "generation.min_tokens=1",
        ("generation.temperature=0.5", 'engine.extra_args=["--no-enable-chunked-prefill"]'),
        "generation.top_p=0.9",
        "generation.top_k=2",
        "generation.seed=1",
        "engine.dtype=bfloat16",
        "engine.max_model_len=130",
    ],
)
def test_settings_change_the_key(folder: Path, change: str | tuple[str, ...]) -> None:
    sets = (change,) if isinstance(change, str) else change
    assert key_of(plan_of(BENCHMARK), folder) != key_of(plan_of(BENCHMARK, sets=sets), folder)


def test_settings_of_other_things_do_not_change_the_key(folder: Path) -> None:
    other = plan_of(BENCHMARK, sets=("engine.max_num_seqs=8", "scenarios.server.target_qps=1"))
    assert key_of(plan_of(BENCHMARK), folder) == key_of(other, folder)


def test_prompts_and_the_model_change_the_key(folder: Path) -> None:
    plan = plan_of(BENCHMARK)
    first = key_of(plan, folder)
    assert key_of(plan, folder, [[11, 12, 13, 14], [15]]) != first
    (folder / "model.safetensors").write_bytes(b"weights")
    assert key_of(plan, folder) == first
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    assert key_of(plan, folder) != first


def test_the_encoder_changes_the_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(BENCHMARK)
    first = key_of(plan, folder)
    changed = tmp_path / "wire.py"
    changed.write_text(Path(wire.__file__).read_text() + "\n")
    with monkeypatch.context() as patch:
        patch.setattr(wire, "__file__", str(changed))
        assert key_of(plan, folder) != first
    metadata = tmp_path / "packages" / "vllm-0.32.0.post1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0.post1\n")
    monkeypatch.syspath_prepend(metadata.parent.parent)
    assert key_of(plan, folder) != first


def test_requests_of_other_prompts_are_not_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan, replay = plan_of(BENCHMARK), plan_of("replay")
    key = key_of(plan, folder)
    entry = cache.cache_dir() / "requests" / f"{plan.dataset.name}-{key[:16]}.msgpack"

    def used(prompts: list[list[int]]) -> bool:
        """Whether a run of PROMPTS takes the requests of ``prompts`` from its cache."""
        cached, fresh = wire.encode(replay, prompts, None), wire.encode(replay, [], None)
        cache.write_entry(entry, key, cached)
        with monkeypatch.context() as patch:
            patch.setattr(wire, "encode", lambda *_: fresh)
            return requests.load(plan, PROMPTS, folder) == cached

    assert used(PROMPTS)
    assert not used([[11, 12, 13], [14]])
    assert not used(PROMPTS[:1])


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_a_second_run_gets_the_same_requests_without_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_path = model.locate(plan_of(BENCHMARK).model)
    assets = [wheels.unpacked(wheel) for wheel in (wheels.NEWS, wheels.PUNKT)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache.cache_dir().mkdir(parents=True)
    (cache.cache_dir() / "assets").symlink_to(assets[0].parent)
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(plan_of(BENCHMARK)))
    imported, first = head(tmp_path, model_path)
    assert {"nltk", "tokenizers", "torch", "vllm"} <= imported
    assert head(tmp_path, model_path) == (set(), first)

    (entry,) = (cache.cache_dir() / "requests").iterdir()
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    imported, again = head(tmp_path, model_path)
    assert "vllm" in imported and "nltk" not in imported and again == first
    assert head(tmp_path, model_path) == (set(), first)


def head(run_dir: Path, model_path: Path) -> tuple[set[str], bytes]:
    """HEAD in a new process: the packages it imported, and its requests."""
    run = subprocess.run(
        [sys.executable, "-c", HEAD, run_dir, model_path],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("imported:")]
    return set(line.split()[1:]), (run_dir / "requests").read_bytes()


def test_long_answers_allow_no_longer_frames() -> None:
    """A stranger can send as much before it is refused."""
    plan = plan_of("replay")
    generation = msgspec.structs.replace(plan.generation, max_tokens=100_000)
    longer = msgspec.structs.replace(plan, generation=generation)
    assert wire.max_output_bytes(longer) == wire.max_output_bytes(plan)
