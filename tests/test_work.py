"""The work of each node and each replica is counted from the run's files."""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec
import pytest
from cli import fast, latest, submit

from sut.results import work
from sut.results.sample_log import SampleLog
from sut.results.work import ReplicaWork


def replica(index: int, node: str, usage: float | None) -> ReplicaWork:
    return ReplicaWork(
        index=index,
        node=node,
        samples=0,
        prompt_tokens=0,
        output_tokens=0,
        busy_s=0,
        share=0,
        kv_cache_usage_max=usage,
    )


def samples(rows: list[tuple[int, int, float, float, float]]) -> SampleLog:
    """Of rows (replica, output tokens, issued, first token, completed), 10 prompt tokens each."""
    columns = list(zip(*rows, strict=True))
    return SampleLog(
        sample_index=array("q", range(len(rows))),
        replica=array("q", columns[0]),
        prompt_tokens=array("q", [10] * len(rows)),
        output_tokens=array("q", columns[1]),
        issued_ms=array("d", columns[2]),
        admitted_ms=array("d", columns[2]),
        first_token_ms=array("d", columns[3]),
        completed_ms=array("d", columns[4]),
    )


def test_adds_up_the_replicas_of_a_node() -> None:
    replicas = [replica(0, "jw2", 0.25), replica(1, "jw2", 0.75), replica(2, "jw3", None)]
    log = samples(
        [(0, 5, 0, 10, 50), (1, 11, 0, 20, 120), (2, 1, 100, 400, 400), (0, 3, 0, 5, 2000)]
    )
    jw2, jw3 = work.of_nodes(replicas, log)
    assert (jw2.node, jw2.replicas, jw2.samples, jw2.output_tokens) == ("jw2", 2, 3, 19)
    assert (jw3.node, jw3.replicas, jw3.samples, jw3.output_tokens) == ("jw3", 1, 1, 1)
    assert jw2.tokens_per_s == 9.5 and jw3.tokens_per_s == 0.5  # over the same two seconds
    assert jw2.ttft_ms is not None and jw2.ttft_ms.max == 20
    assert jw2.tpot_ms is not None and jw2.tpot_ms.p50 == 10
    assert jw3.tpot_ms is None  # one token
    assert (jw2.kv_cache_usage_max, jw3.kv_cache_usage_max) == (0.75, None)


def test_a_replica_on_two_nodes_counts_for_both() -> None:
    both = msgspec.structs.replace(replica(0, "jw2", None), nodes=("jw2", "jw3"))
    (together,) = work.of_nodes([both], samples([(0, 5, 0, 10, 50)]))
    assert (together.node, together.replicas, together.output_tokens) == ("jw2+jw3", 1, 5)


def test_an_idle_node_has_zero_work() -> None:
    idle = work.of_nodes(
        [replica(0, "jw2", None), replica(1, "jw3", None)], samples([(0, 2, 0, 1, 2)])
    )[1]
    assert (idle.node, idle.samples, idle.tokens_per_s, idle.ttft_ms) == ("jw3", 0, 0, None)


def test_quantiles_equal_the_dispatchers() -> None:
    of_ms = work.quantiles(n / 1e6 for n in range(1000))
    assert of_ms == work.quantiles_of_ns(
        {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "max": 999}
    )
    assert work.quantiles([]) is None and work.quantiles_of_ns({}) is None


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("", []),
        ('{"t_s":1,"step":"x","pid":7}\n{"t_s":2,"step":"p","phase":"p","completed":3}\n', [3]),
        ('{"t_s":2,"step":"p","phase":"p","completed":3}\nrubbish\n{"t_s":3,"st', [3]),
        (
            '{"t_s":1,"step":"p","phase":"p","completed":3}\n{"t_s":0,"step":"x","pid":8}\n'
            '{"t_s":2,"step":"p","phase":"p","completed":5}\n{"t_s":0,"step":"x","pid":9}\n'
            '{"t_s":2,"step":"q","phase":"q","completed":9}\n',
            [5],
        ),
    ],
)
def test_progress_comes_from_the_phases_last_attempt(
    text: str, completed: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text(text)
    assert [line.completed for line in work.lines_of(path, "p")] == completed


def test_a_missing_progress_file_has_no_lines(tmp_path: Path) -> None:
    assert work.lines_of(tmp_path / "progress.jsonl", "p") == []


def test_a_runs_nodes_add_up(tmp_path: Path) -> None:
    submit(tmp_path, *fast(), "--set", "site.num_replicas=2")
    (phase,) = latest(tmp_path).phases
    (node,) = phase.nodes
    assert phase.dispatcher is not None
    assert (node.node, node.replicas) == ("localhost", 2)
    assert node.samples == phase.dispatcher.completed
    assert node.output_tokens == phase.dispatcher.output_tokens
    ours, its = node.ttft_ms, phase.dispatcher.ttft_ms
    assert ours is not None and its is not None
    assert ours.p99 == pytest.approx(its.p99, abs=0.002)
    assert phase.duration_s == pytest.approx(phase.dispatcher.elapsed_s, abs=0.01)
    assert all(replica.kv_cache_usage_max is not None for replica in phase.replicas)
