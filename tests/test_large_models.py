"""The large models: where they fit, and a rehearsal of llama2-70b-99.9 with the replay engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli import environment, set_arguments, submit
from test_convert import MD5, ORCA
from test_model_config import folder

from sut import convert, package
from sut.results import record
from sut.results.record import Record

BENCHMARK = "llama2-70b-99.9"
LLAMA2: dict[str, Any] = {
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
}
WEIGHTS_GIB = 128.5  # of meta-llama/Llama-2-70b-chat-hf: 68,976,648,192 weights in float16


GPT_OSS = "gpt-oss-120b"
GPT_OSS_CONFIG: dict[str, Any] = {
    "hidden_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_hidden_layers": 36,
    "max_position_embeddings": 131072,
}
GPT_OSS_GIB = 60.8  # of openai/gpt-oss-120b: MXFP4 experts, the rest in bfloat16


def dry_run(
    tmp_path: Path, num_nodes: int, gpus: int, gib: int, *arguments: str, name: str = BENCHMARK
) -> Any:
    """A dry run on a cluster of this shape, with a model of the size of the benchmark's."""
    values, size = (GPT_OSS_CONFIG, GPT_OSS_GIB) if name == GPT_OSS else (LLAMA2, WEIGHTS_GIB)
    model = folder(tmp_path / "model", values, *[size / 15] * 15)
    (tmp_path / "data.jsonl").write_text("")
    nodes = "".join(
        f"  - {{name: g{i}, gpus: {gpus}, gpu_memory_gib: {gib}}}\n"
        for i in range(1, num_nodes + 1)
    )
    (tmp_path / "site.yaml").write_text(
        f"name: s\ndevice: cuda\ninterface: eth0\nnodes:\n{nodes}run_root: {tmp_path}/runs\n"
        f"cache: {tmp_path}/cache\nmodels: {{Llama-2-70b-chat-hf: {model}, {GPT_OSS}: {model}}}\n"
        "datasets: {open_orca_gpt4_tokenized_llama.sampled_24576: "
        f"{tmp_path}/data.jsonl, {GPT_OSS}-performance: {tmp_path}/data.jsonl}}\n"
        "slurm: {gres: gpu}\n"
    )
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    return submit(
        tmp_path,
        *("--config", name, "--site", str(tmp_path / "site.yaml"), "--dry-run"),
        *("--scenario", "offline", "--preset", "official", *arguments),
        env=environment(PATH=f"{tmp_path}:/usr/bin:/bin"),
    )


def assert_planned(run: Any) -> None:
    """The plan is printed; its only errors are that the test's folders are on no shared disk."""
    assert "own disk, where no other node sees it" in run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert all("is on this machine's own disk" in line for line in errors), run.stderr


def test_two_nodes_of_one_a30_are_refused_with_what_would_fit(tmp_path: Path) -> None:
    for sets in ([], ["--nodes", "all"]):
        run = dry_run(tmp_path, 2, 1, 24, *sets)
        assert run.returncode == 2, run.stdout
        assert "the model does not fit on g1: it needs" in run.stderr
        assert "it fits on 8 GPUs, and site s has 2: use GPUs with more memory" in run.stderr
        assert "a replica needs 4 GPUs" in run.stderr


def test_four_nodes_of_four_a30_take_two_replicas(tmp_path: Path) -> None:
    refused = dry_run(tmp_path, 4, 4, 24, "--nodes", "all")
    assert refused.returncode == 2 and "use 8 GPUs" in refused.stderr
    split = set_arguments(["engine.pipeline_parallel_size=2"])
    planned = dry_run(tmp_path, 4, 4, 24, "--nodes", "all", *split)
    assert_planned(planned)
    assert "16.1 GiB of weights" in planned.stdout and "on 8 GPUs" in planned.stdout
    assert "official" in planned.stdout and "2 replicas" in planned.stdout


def test_a_node_of_eight_h100_takes_two_replicas(tmp_path: Path) -> None:
    planned = dry_run(tmp_path, 1, 8, 80)
    assert_planned(planned)
    assert "32.1 GiB of weights" in planned.stdout and "on 4 GPUs" in planned.stdout
    assert "2 replicas" in planned.stdout


def test_gpt_oss_fits_four_a30_or_one_h100(tmp_path: Path) -> None:
    refused = dry_run(tmp_path, 2, 1, 24, "--nodes", "all", name=GPT_OSS)
    assert refused.returncode == 2
    assert "the model does not fit on g1: it needs 63.6 GiB per GPU" in refused.stderr
    assert "it fits on 4 GPUs, and site s has 2" in refused.stderr
    split = set_arguments(["engine.tensor_parallel_size=4"])
    a30 = dry_run(tmp_path, 4, 4, 24, "--nodes", "all", *split, name=GPT_OSS)
    assert_planned(a30)
    assert "15.9 GiB per GPU" in a30.stdout and "4 replicas of 4 GPUs" in a30.stdout
    h100 = dry_run(tmp_path, 1, 8, 80, name=GPT_OSS)
    assert_planned(h100)
    assert "63.6 GiB per GPU" in h100.stdout and "8 replicas of 1 GPU" in h100.stdout


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of the shipped benchmark, all tests, on a small file of the official format."""
    folder = tmp_path_factory.mktemp("rehearsal")
    assert convert.main([str(ORCA), str(folder / "data.jsonl")]) == 0
    (folder / "site.yaml").write_text(
        f"name: here\nrun_root: {folder}/runs\n"
        f"datasets: {{open_orca_gpt4_tokenized_llama.sampled_24576: {folder}/data.jsonl}}\n"
    )
    sets = ["model={name: SmolLM2-135M-Instruct, embedded: true, loadgen_name: llama2-70b}"]
    sets += ["dataset.num_samples=24", f"dataset.source_md5={MD5}", "engine.kind=replay"]
    sets += ["engine.tensor_parallel_size=1", "engine.replay.answers=references"]
    sets += ["engine.replay.step_base_us=200", "engine.replay.step_per_sequence_us=0"]
    sets += [f"scenarios.{each}.performance_sample_count=24" for each in ("offline", "server")]
    sets += [f"scenarios.{each}.accuracy_sample_count=24" for each in ("offline", "server")]
    sets += [f"scenarios.{each}.min_duration_ms=500" for each in ("offline", "server")]
    sets += ["scenarios.offline.min_query_count=24", "scenarios.offline.target_qps=1000"]
    sets += ["scenarios.server.min_query_count=480", "scenarios.server.target_qps=300"]
    runs = {}
    for scenario in ("offline", "server"):
        run = submit(
            *(folder, "--config", BENCHMARK, "--site", str(folder / "site.yaml")),
            *("--scenario", scenario, "--preset", "official", "--mode", "all"),
            *set_arguments(sets),
        )
        assert run.returncode == 0, run.stdout + run.stderr
        runs[scenario] = (folder / "runs" / "latest").resolve()
    return runs


@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_a_rehearsal_is_judged_by_the_benchmarks_gates(
    rehearsed: dict[str, Path], scenario: str
) -> None:
    found: Record = record.read(rehearsed[scenario])
    assert [phase.name for phase in found.phases] == ["performance", "accuracy", "compliance"]
    assert found.verdict == "VALID"
    scores = found.phases[1].accuracy
    assert scores is not None and scores["rouge1"] == scores["rougeL"] == 100
    assert scores["tokens_per_sample"] == 293.0
    checks = {check.code for check in found.phases[1].verdict.checks}
    gates = {"rouge1", "rouge2", "rougeL", "tokens_per_sample"}
    assert {f"accuracy_{metric}" for metric in gates} <= checks


def test_answers_have_the_lengths_of_their_references(rehearsed: dict[str, Path]) -> None:
    lines = (rehearsed["server"] / "loadgen/performance/samples.csv").read_text().splitlines()
    column = lines[0].split(",").index("output_tokens")
    lengths = {int(line.split(",")[column]) for line in lines[1:]}
    assert len(lengths) > 15 and max(lengths) > 10 * min(lengths)


def test_the_package_names_what_a_rehearsal_lacks(
    rehearsed: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--submitter", "X", "--division", "closed", "--output", str(tmp_path / "tree")]
    assert package.main([*arguments, str(rehearsed["server"])]) == 2
    printed = capsys.readouterr().err
    assert "the replay engine answers, not a model" in printed
    assert f"closed {BENCHMARK} needs Offline; there is no such run" in printed
    assert "changed on the command line" in printed
    assert package.main([*arguments, "--preview", *map(str, rehearsed.values())]) == 0
    results = next((tmp_path / "tree").glob(f"closed/X/results/*/{BENCHMARK}"))
    for scenario in ("Offline", "Server"):
        text = (results / scenario / "accuracy" / "accuracy.txt").read_text()
        assert "'tokens_per_sample': 293" in text and "'rouge1': 100" in text
