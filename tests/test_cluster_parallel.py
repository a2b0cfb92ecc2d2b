"""A model split over two nodes answers as on one: real vLLM on the test cluster."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cluster.cluster import USER_ID, Cluster
from on_cluster import latest, submitted_and_awaited
from pad_heads import pad

from sut.inputs import model
from sut.results import accuracy

NUM_ARTICLES = 50
EAGER_PIPELINE = '["-cc.mode=2", "-cc.backend=eager"]'

pytestmark = [pytest.mark.long, pytest.mark.own_cache]


@pytest.fixture
def padded(idle: Cluster, tmp_path: Path) -> str:
    """The embedded model with head counts that two ranks divide, in a folder the nodes share."""
    folder = tmp_path / "padded"
    pad(model.embedded(), folder, heads=12, kv_heads=4)
    shared = idle.home() / "padded"
    shutil.copytree(folder, shared, dirs_exist_ok=True)
    for path in [shared, *shared.rglob("*")]:
        os.chown(path, USER_ID, USER_ID)
    return "/home/bench/padded"


def answers(cluster: Cluster, *arguments: str) -> dict[int, list[int]]:
    """The answers' token ids for the first articles, from LoadGen's log."""
    sets = [
        f"scenarios.singlestream.accuracy_sample_count={NUM_ARTICLES}",
        "engine.dtype=float32",
        "site.timeouts.warmup_s=300",
    ]
    command = ["--scenario", "singlestream", "--mode", "accuracy", *arguments]
    for change in sets:
        command += ["--set", change]
    done = submitted_and_awaited(cluster, *command, timeout_s=900)
    assert done.returncode in (0, 1), done.stdout + done.stderr  # the gates apply to all articles
    assert latest(cluster).status == "completed"
    folder = cluster.home() / "runs/latest/loadgen/accuracy"
    return accuracy.read_answers(folder, NUM_ARTICLES)


@pytest.mark.timeout(3000)
def test_parallelism_across_nodes_keeps_the_answers(idle: Cluster, padded: str) -> None:
    of_padded = ["--set", "model.name=padded", "--set", "model.embedded=false"]
    of_padded += ["--set", f"site.models={{padded: {padded}}}"]
    alone = answers(idle, "--nodes", "jw2")
    both = ("--nodes", "jw2,jw3")
    tensor = answers(idle, *both, *of_padded, "--set", "engine.tensor_parallel_size=2")
    assert [part.node for part in latest(idle).plan.replicas[0].parts] == [0, 1]
    pipeline = answers(
        idle,
        *both,
        *("--set", "engine.pipeline_parallel_size=2"),
        *("--set", "engine.enforce_eager=false"),
        *("--set", f"engine.extra_args={EAGER_PIPELINE}"),
    )
    assert len(alone) == NUM_ARTICLES
    assert differing(alone, tensor) == [] and differing(alone, pipeline) == []


def differing(one: dict[int, list[int]], other: dict[int, list[int]]) -> list[int]:
    return [index for index in one if one[index] != other.get(index)]
