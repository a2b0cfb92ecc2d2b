"""Which nodes, cores and GPUs the replicas of a run get."""

from __future__ import annotations

import msgspec
import pytest

from sut.errors import Errors
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
    errors = Errors()
    result = place(engine, site, nodes, (0, 1), errors)
    assert not errors
    return result


def refused(site: Site, nodes: str = "", *, tp: int = 1, pp: int = 1) -> str:
    engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=tp, pipeline_parallel_size=pp)
    errors = Errors()
    assert place(engine, site, nodes, (0, 1), errors) == Placement()
    return "\n".join(map(str, errors))


def gpus(placement: Placement) -> list[list[tuple[int, tuple[int, ...]]]]:
    return [[(part.node, part.gpus) for part in r.parts] for r in placement.replicas]


def test_takes_one_node_of_slurms_choice() -> None:
    one = placed(cluster(2, 1))
    assert [node.name for node in one.nodes] == [""]
    assert gpus(one) == [[(0, (0,))]]
    assert [node.name for node in placed(cluster(2, 1), "n1").nodes] == ["n1"]


def test_all_nodes_give_a_replica_per_gpu() -> None:
    both = placed(cluster(2, 1), "all")
    assert [node.name for node in both.nodes] == ["n0", "n1"]
    assert gpus(both) == [[(0, (0,))], [(1, (0,))]]
    assert len(placed(cluster(4, 8), "4").replicas) == 32


def test_a_replica_fits_a_node_or_takes_several() -> None:
    assert gpus(placed(cluster(1, 4), tp=2)) == [[(0, (0, 1))], [(0, (2, 3))]]
    assert gpus(placed(cluster(2, 1), "2", tp=2)) == [[(0, (0,)), (1, (0,))]]
    two_of_two = placed(cluster(4, 1), "all", tp=2)
    assert gpus(two_of_two) == [[(0, (0,)), (1, (0,))], [(2, (0,)), (3, (0,))]]
    across = placed(cluster(2, 2), "2", tp=2, pp=2)
    assert gpus(across) == [[(0, (0, 1)), (1, (0, 1))]]


def test_cpu_nodes_run_an_engine_each() -> None:
    nodes = (SiteNode(name="a", cpus=(0,)), SiteNode(name="b", cpus=(1,)))
    site = cluster(0, 0, device=Device.CPU, nodes=nodes)
    both = placed(site, "all")
    assert [replica.parts[0].cpus for replica in both.replicas] == [(0,), (1,)]
    spread = placed(site, "all", tp=2)
    assert [part.cpus for part in spread.replicas[0].parts] == [(0,), (1,)]
    # a and b differ, so Slurm has no choice.
    assert [node.name for node in placed(site).nodes] == ["a"]


@pytest.mark.parametrize(
    ("site", "nodes", "tp", "text"),
    [
        (cluster(2, 1), "n3", 1, "has no node 'n3'\nhint: choose from: n0, n1"),
        (cluster(2, 1), "3", 1, "has 2 nodes"),
        (cluster(2, 1), "n0,n0", 1, "duplicate node"),
        (cluster(2, 1), "1", 2, "use more nodes: --nodes 2"),
        (cluster(2, 1), "2", 3, "use at most the 2 GPUs of site"),
        (cluster(2, 3), "2", 4, "does not divide evenly over nodes of 3 GPUs"),
        (cluster(1, 3), "1", 2, "leave 1 of 3 GPUs idle"),
        (cluster(3, 1), "3", 2, "leave 1 of 3 GPUs idle"),
        (cluster(2, 1, num_replicas=3), "2", 1, "2 GPUs are enough for 2 replicas"),
        (cluster(2, 0), "1", 1, "need the same number of GPUs"),
        (cluster(0, 0), "1", 1, "list the cluster's nodes"),
        (Site(name="here"), "jw2", 1, "is a single machine"),
    ],
)
def test_refuses_an_impossible_placement_with_a_hint(
    site: Site, nodes: str, tp: int, text: str
) -> None:
    assert text in refused(site, nodes, tp=tp)
