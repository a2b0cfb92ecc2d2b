"""Which nodes, cores and GPUs the replicas of a run get."""

from __future__ import annotations

import msgspec
import pytest

from sut.plan.benchmark import Engine
from sut.plan.placement import Placement, place
from sut.plan.site import Device, Site, SiteNode, SiteSlurm

ENGINE = Engine(max_model_len=2668, max_num_seqs=64, max_num_batched_tokens=1024)


def cluster(num_nodes: int, gpus: int, **changes: object) -> Site:
    nodes = tuple(SiteNode(name=f"n{i}", gpus=gpus) for i in range(num_nodes))
    site = Site(name="big", device=Device.CUDA, nodes=nodes, slurm=SiteSlurm())
    return msgspec.structs.replace(site, **changes)


def placed(site: Site, nodes: str = "", *, tp: int = 1, pp: int = 1) -> Placement:
    engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=tp, pipeline_parallel_size=pp)
    mistakes: list[str] = []
    result = place(engine, site, nodes, (0, 1), mistakes)
    assert not mistakes
    return result


def mistake(site: Site, nodes: str = "", *, tp: int = 1, pp: int = 1) -> str:
    engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=tp, pipeline_parallel_size=pp)
    mistakes: list[str] = []
    assert place(engine, site, nodes, (0, 1), mistakes) == Placement()
    return "\n".join(mistakes)


def gpus(placement: Placement) -> list[list[tuple[int, tuple[int, ...]]]]:
    return [[(part.node, part.gpus) for part in r.parts] for r in placement.replicas]


def test_one_node_is_taken_unless_more_are_asked_for_and_slurm_chooses_which() -> None:
    one = placed(cluster(2, 1))
    assert [node.name for node in one.nodes] == [""]
    assert gpus(one) == [[(0, (0,))]]
    assert [node.name for node in placed(cluster(2, 1), "n1").nodes] == ["n1"]


def test_distributed_is_a_replica_on_every_gpu_of_every_node() -> None:
    both = placed(cluster(2, 1), "all")
    assert [node.name for node in both.nodes] == ["n0", "n1"]
    assert gpus(both) == [[(0, (0,))], [(1, (0,))]]
    assert len(placed(cluster(4, 8), "4").replicas) == 32


def test_tensor_parallel_fits_into_a_node_or_takes_whole_nodes() -> None:
    assert gpus(placed(cluster(1, 4), tp=2)) == [[(0, (0, 1))], [(0, (2, 3))]]
    assert gpus(placed(cluster(2, 1), "2", tp=2)) == [[(0, (0,)), (1, (0,))]]
    two_of_two = placed(cluster(4, 1), "all", tp=2)
    assert gpus(two_of_two) == [[(0, (0,)), (1, (0,))], [(2, (0,)), (3, (0,))]]
    across = placed(cluster(2, 2), "2", tp=2, pp=2)
    assert gpus(across) == [[(0, (0, 1)), (1, (0, 1))]]


def test_nodes_of_cpus_hold_an_engine_each_on_the_cores_the_site_names() -> None:
    nodes = (SiteNode(name="a", cpus=(0,)), SiteNode(name="b", cpus=(1,)))
    site = cluster(0, 0, device=Device.CPU, nodes=nodes)
    both = placed(site, "all")
    assert [replica.parts[0].cpus for replica in both.replicas] == [(0,), (1,)]
    spread = placed(site, "all", tp=2)
    assert [part.cpus for part in spread.replicas[0].parts] == [(0,), (1,)]
    assert [node.name for node in placed(site).nodes] == ["a"]  # unlike b: not any of the two


@pytest.mark.parametrize(
    ("site", "nodes", "tp", "text"),
    [
        (cluster(2, 1), "n3", 1, "has no node 'n3'. It has n0, n1"),
        (cluster(2, 1), "3", 1, "has 2 nodes"),
        (cluster(2, 1), "n0,n0", 1, "names a node twice"),
        (cluster(2, 1), "1", 2, "Take more nodes: --nodes 2"),
        (cluster(2, 3), "2", 4, "can't be spread evenly over nodes of 3 GPUs"),
        (cluster(1, 3), "1", 2, "leave 1 of 3 GPUs idle"),
        (cluster(3, 1), "3", 2, "leave 1 of 3 GPUs idle"),
        (cluster(2, 1, num_replicas=3), "2", 1, "2 GPUs hold 2 replicas"),
        (cluster(2, 0), "1", 1, "need the same number of GPUs"),
        (cluster(0, 0), "1", 1, "Name its nodes"),
        (Site(name="here"), "jw2", 1, "is one machine without Slurm"),
    ],
)
def test_what_can_not_be_placed_is_told_with_what_would_fit(
    site: Site, nodes: str, tp: int, text: str
) -> None:
    assert text in mistake(site, nodes, tp=tp)
