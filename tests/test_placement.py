"""Which nodes, cores and GPUs the replicas of a run get."""

from __future__ import annotations

import msgspec
import pytest
from plans import plan_of

from sut.errors import Errors
from sut.launch import members
from sut.launch.request import RunRequest
from sut.plan.alternatives import Alternatives
from sut.plan.benchmark import Engine
from sut.plan.config import Campaign, CampaignRun
from sut.plan.placement import Placement, on_nodes, place
from sut.plan.site import Device, Site, SiteNode, SiteSlurm

ENGINE = Engine(max_model_len=2668, max_num_seqs=64, max_num_batched_tokens=1024)


def cluster(num_nodes: int, gpus: int, **changes: object) -> Site:
    nodes = tuple(SiteNode(name=f"n{i}", gpus=gpus) for i in range(num_nodes))
    site = Site(name="big", device=Device.CUDA, nodes=nodes, slurm=SiteSlurm())
    return msgspec.structs.replace(site, **changes)


def unlike(*gpus: int, **changes: object) -> Site:
    nodes = tuple(SiteNode(name=f"n{i}", gpus=count) for i, count in enumerate(gpus))
    return cluster(0, 0, nodes=nodes, **changes)


def placed(site: Site, nodes: str = "", *, tp: int = 1, pp: int = 1) -> Placement:
    engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=tp, pipeline_parallel_size=pp)
    errors = Errors()
    result = place(engine, site, nodes, (0, 1), errors)
    assert not errors
    return result


def refused(site: Site, nodes: str = "", *, tp: int = 1, pp: int = 1) -> str:
    engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=tp, pipeline_parallel_size=pp)
    errors = Errors()
    others = Alternatives(size=None, engine=engine, site=site, nodes=nodes, usable_cpus=(0, 1))
    assert place(engine, site, nodes, (0, 1), errors, advise=others.hint) == Placement()
    return "\n".join(map(str, errors))


def gpus(placement: Placement) -> list[list[tuple[int, tuple[int, ...]]]]:
    return [[(part.node, part.gpus) for part in r.parts] for r in placement.replicas]


def test_takes_one_node_of_slurms_choice() -> None:
    one = placed(cluster(2, 1))
    assert [node.name for node in one.nodes] == [""]
    assert gpus(one) == [[(0, (0,))]]
    assert [node.name for node in placed(cluster(2, 1), "n1").nodes] == ["n1"]


def test_takes_a_hostlists_nodes_in_the_sites_order() -> None:
    assert [node.name for node in placed(cluster(4, 1), "n[1-2]").nodes] == ["n1", "n2"]
    assert [node.name for node in placed(cluster(4, 1), "n3,n0").nodes] == ["n0", "n3"]


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


def test_nodes_of_unlike_gpus_get_a_replica_on_each_gpu() -> None:
    both = placed(unlike(1, 3), "all")
    assert [node.gpus for node in both.nodes] == [1, 3]
    assert gpus(both) == [[(0, (0,))], [(1, (0,))], [(1, (1,))], [(1, (2,))]]
    assert gpus(placed(unlike(4, 2), "all", tp=2)) == [
        [(0, (0, 1))],
        [(0, (2, 3))],
        [(1, (0, 1))],
    ]
    assert gpus(placed(unlike(2, 4, num_replicas=3), "all")) == [
        [(0, (0,))],
        [(0, (1,))],
        [(1, (0,))],
    ]


def test_a_number_of_nodes_prefers_equal_ones() -> None:
    assert [node.name for node in placed(unlike(4, 2, 2), "2").nodes] == ["n1", "n2"]
    assert [node.name for node in placed(unlike(4, 2, 1), "2").nodes] == ["n0", "n1"]
    assert [node.name for node in placed(unlike(4, 2, 2, 2), "2").candidates] == ["n1", "n2", "n3"]


def test_cpu_nodes_run_an_engine_each() -> None:
    nodes = (SiteNode(name="a", cpus=(0,)), SiteNode(name="b", cpus=(1,)))
    site = cluster(0, 0, device=Device.CPU, nodes=nodes)
    both = placed(site, "all")
    assert [replica.parts[0].cpus for replica in both.replicas] == [(0,), (1,)]
    spread = placed(site, "all", tp=2)
    assert [part.cpus for part in spread.replicas[0].parts] == [(0,), (1,)]


def test_slurm_chooses_among_nodes_that_differ_in_cores() -> None:
    nodes = (SiteNode(name="a", cpus=(0,)), SiteNode(name="b", cpus=(1,)), SiteNode(name="c"))
    site = cluster(0, 0, device=Device.CPU, nodes=nodes)
    one = placed(site)
    assert [node.name for node in one.nodes] == [""] and one.replicas[0].parts[0].cpus == ()
    assert [(node.name, node.cpus) for node in one.candidates] == [
        ("a", (0,)),
        ("b", (1,)),
        ("c", ()),
    ]


def test_slurm_chooses_only_nodes_with_enough_cores() -> None:
    few, many, none = (
        SiteNode(name="a", cpus=(0,)),
        SiteNode(name="b", cpus=(0, 1)),
        SiteNode(name="c"),
    )
    other = SiteNode(name="d", cpus=(2, 3), gpus=1)
    site = cluster(0, 0, device=Device.CPU, nodes=(few, many, none, other), num_replicas=2)
    assert [node.name for node in placed(site).nodes] == ["b"]  # a has one core, c unknown ones
    again = msgspec.structs.replace(
        site, nodes=(few, many, msgspec.structs.replace(many, name="e"))
    )
    assert [node.name for node in placed(again).candidates] == ["b", "e"]
    assert "2 replicas need at least one core each" in refused(
        msgspec.structs.replace(site, nodes=(few, few))
    )


def test_slurm_chooses_only_gpus_that_fit_the_model() -> None:
    sizes = {"a": (1, 16.0), "b": (1, 24.0), "c": (2, 24.0), "d": (1, 24.0)}
    nodes = tuple(
        SiteNode(name=name, gpus=gpus, gpu_memory_gib=gib) for name, (gpus, gib) in sizes.items()
    )
    site = cluster(0, 0, nodes=nodes)
    errors = Errors()
    one = place(ENGINE, site, "1", (), errors, lambda node: node.gpu_memory_gib > 16)
    assert [node.name for node in one.candidates] == ["b", "d"]
    three = place(ENGINE, site, "3", (), errors, lambda node: node.gpu_memory_gib > 16)
    assert [node.name for node in three.site_nodes] == ["a", "b", "d"] and not three.candidates
    assert not errors


def test_a_campaign_takes_a_hostlist() -> None:
    runs = (CampaignRun(name="both", nodes="jw[2-3]"),)
    campaign = Campaign(name="c", benchmark="replay", site="devcluster", runs=runs)
    (both,) = members.plan(campaign, RunRequest())
    assert [node.name for node in both.plan.nodes] == ["jw2", "jw3"]


def test_replicas_get_the_cores_of_the_chosen_nodes() -> None:
    changes = (
        "site.nodes=[{name: a, cpus: [0, 1]}, {name: b, cpus: [4, 5, 6, 7]}, "
        "{name: c, cpus: [8, 9]}]",
        "site.num_replicas=4",
    )
    plan = plan_of("smollm2-135m-news", site="devcluster", nodes="2", sets=changes)
    assert plan.nodes_text() == "any of a,b,c" and all(node.name == "" for node in plan.nodes)
    here = on_nodes(plan, ("b", "c"))
    assert [node.name for node in here.nodes] == ["b", "c"]
    assert [part.cpus for r in here.replicas for part in r.parts] == [(4, 5), (6, 7), (8,), (9,)]
    named = plan_of("smollm2-135m-news", site="devcluster", nodes="b,c", sets=changes)
    assert here.replicas == named.replicas and here.nodes == named.nodes
    assert on_nodes(named, ("b", "c")) == named


@pytest.mark.parametrize(
    ("site", "nodes", "tp", "text"),
    [
        (cluster(2, 1), "n3", 1, "has no node 'n3'\nhint: choose from: n[0-1]"),
        (cluster(2, 1), "3", 1, "has 2 nodes"),
        (cluster(2, 1), "n0,n0", 1, "--nodes n0,n0: duplicate node n0\nhint: "),
        (cluster(2, 1), "n[0-1],n1", 1, "duplicate node n1"),
        (cluster(2, 1), "n0,,n1", 1, "empty name between commas"),
        (
            cluster(2, 1),
            "n[0-1",
            1,
            "unmatched [\nhint: give a number, all, or nodes of site big: ",
        ),
        (cluster(2, 1), "1", 2, "hint: --nodes 2"),
        (cluster(2, 1), "2", 3, "hint: --set engine.tensor_parallel_size=N with N in 1, 2 that"),
        (cluster(2, 3), "2", 4, "divide evenly over nodes of 3 GPUs\nhint: --set engine.tensor_p"),
        (cluster(1, 3), "1", 2, "leave 1 of 3 GPUs idle\nhint: --set site.num_replicas=1"),
        (cluster(3, 1), "3", 2, "leave 1 of 3 GPUs idle"),
        (
            cluster(2, 1, num_replicas=3),
            "2",
            1,
            "the run's 2 GPUs have room for only 2, with 1 for each",
        ),
        (cluster(2, 0), "1", 1, "need at least one GPU each (n0: 0)"),
        (unlike(4, 0), "all", 1, "need at least one GPU each (n0: 4, n1: 0)"),
        (unlike(4, 2), "all", 4, "does not fit on each node (n0: 4, n1: 2)"),
        (unlike(6, 4), "all", 3, "do not divide the 6, 4 GPUs of a node evenly\nhint: --set "),
        (unlike(6, 4), "all", 4, "do not divide the 6, 4 GPUs of a node evenly\nhint: --set "),
        (
            unlike(4, 2, num_replicas=7),
            "all",
            1,
            "the run's 6 GPUs have room for only 6, with 1 for each",
        ),
        (cluster(0, 0), "1", 1, "list the cluster's nodes"),
        (Site(name="here"), "jw2", 1, "is a single machine"),
    ],
)
def test_refuses_an_impossible_placement_with_a_hint(
    site: Site, nodes: str, tp: int, text: str
) -> None:
    assert text in refused(site, nodes, tp=tp)
