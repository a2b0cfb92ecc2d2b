"""The hints about a division of nodes and heads: who follows one gets a plan."""

from __future__ import annotations

import itertools
import re
import shlex

import msgspec
import pytest

from sut.errors import Errors
from sut.plan import fit
from sut.plan.alternatives import Alternatives
from sut.plan.benchmark import Engine
from sut.plan.placement import Placement, place
from sut.plan.site import Device, Site, SiteNode, SiteSlurm

ENGINE = Engine(max_model_len=2668, max_num_seqs=64, max_num_batched_tokens=1024)
NINE_HEADS = fit.ModelSize(num_heads=9, num_kv_heads=3, num_layers=30)
LARGE = fit.ModelSize(weights_gib=30, weight_bytes=2, num_heads=32, num_kv_heads=8)


def cluster(*gpus: int) -> Site:
    nodes = tuple(SiteNode(name=f"n{i}", gpus=n, gpu_memory_gib=24) for i, n in enumerate(gpus))
    return Site(name="big", device=Device.CUDA, nodes=nodes, slurm=SiteSlurm())


def cores(*counts: int) -> Site:
    nodes = tuple(SiteNode(name=f"n{i}", cpus=tuple(range(n))) for i, n in enumerate(counts))
    return Site(name="slow", device=Device.CPU, nodes=nodes, slurm=SiteSlurm())


def checked(
    size: fit.ModelSize, engine: Engine, site: Site, nodes: str
) -> tuple[Placement, set[str]]:
    """The placement, and the hints of the errors."""
    errors = Errors()
    hint = Alternatives(size=size, engine=engine, site=site, nodes=nodes, usable_cpus=()).hint
    placed = place(
        engine, site, nodes, (), errors, lambda node: fit.fits(size, engine, site, node), hint
    )
    fit.check_model(size, engine, site, placed.site_nodes, errors, hint)
    return placed, {str(error).partition("hint: ")[2] for error in errors}


def followed(hint: str, engine: Engine, site: Site, nodes: str) -> list[tuple[Engine, Site, str]]:
    """The inputs with the options of a hint, for each value of N in it."""
    values = re.search(r" with N in ([0-9, ]+)", hint)
    found = []
    for value in values[1].split(", ") if values else [""]:
        tried, at, on = engine, site, nodes
        words = shlex.split(re.sub(r"=N with N in .*", f"={value}", hint).rpartition(";")[2])
        for option, argument in itertools.pairwise(words):
            key, _, number = argument.partition("=")
            if option == "--nodes":
                on = argument
            elif key == "engine.tensor_parallel_size":
                tried = msgspec.structs.replace(tried, tensor_parallel_size=int(number))
            elif key == "site.num_replicas":
                at = msgspec.structs.replace(at, num_replicas=int(number))
        assert (tried, at, on) != (engine, site, nodes), hint
        found.append((tried, at, on))
    return found


@pytest.mark.parametrize(
    ("site", "nodes"),
    [
        (cluster(1, 1), "2"),
        (cluster(2, 2), "2"),
        (cluster(3, 3, 3), "all"),
        (cluster(4, 4), "1"),
        (cluster(4, 4), "n0,n1"),
        (cluster(6, 3), "all"),
        (cluster(8, 8), "2"),
        (cores(1, 1), "2"),
        (cores(4, 4), "2"),
        (msgspec.structs.replace(cluster(4, 4), num_replicas=7), "2"),
    ],
)
@pytest.mark.parametrize("size", [NINE_HEADS, LARGE])
@pytest.mark.parametrize("pp", [1, 2])
def test_a_hint_that_is_followed_gives_a_plan(
    site: Site, nodes: str, size: fit.ModelSize, pp: int
) -> None:
    followed_hints = 0
    for tp in range(1, 11):
        engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=tp, pipeline_parallel_size=pp)
        _, hints = checked(size, engine, site, nodes)
        for hint in hints:
            if "override this" in hint or hint.endswith(("_parallel_size=N", "NAME,NAME")):
                continue  # not a change of the division, or no change works
            for inputs in followed(hint, engine, site, nodes):
                placed, again = checked(size, *inputs)
                assert not again and placed.replicas, (tp, hint)
                followed_hints += 1
    assert followed_hints > 0 or size is LARGE  # its memory leaves no change for some


def hint_of(size: fit.ModelSize, site: Site, nodes: str, *, tp: int, pp: int = 1) -> str:
    engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=tp, pipeline_parallel_size=pp)
    (hint,) = checked(size, engine, site, nodes)[1]
    return hint


def test_names_the_sizes_that_divide_both() -> None:
    assert hint_of(NINE_HEADS, cluster(1, 1), "2", tp=2) == "--set engine.tensor_parallel_size=1"
    assert hint_of(NINE_HEADS, cluster(3, 3, 3), "all", tp=2) == (
        "--set engine.tensor_parallel_size=N with N in 1, 3, 9"
    )
    assert hint_of(LARGE, cluster(8, 8), "2", tp=3).endswith("with N in 2, 4, 8, 16")


def test_names_a_number_of_replicas_or_nodes_where_no_size_divides_both() -> None:
    none = "no engine.tensor_parallel_size suits the model and these nodes; "
    assert hint_of(NINE_HEADS, cluster(4, 4), "1", tp=2, pp=3) == (
        f"{none}instead: --set engine.tensor_parallel_size=1 --set site.num_replicas=1"
    )
    assert hint_of(LARGE, cluster(1, 1), "1", tp=3) == (
        f"{none}instead: --nodes 2 --set engine.tensor_parallel_size=2"
    )
    assert hint_of(NINE_HEADS, cluster(4, 4), "2", tp=9, pp=3).startswith(f"{none}choose others")


def test_a_node_alone_may_leave_gpus_idle() -> None:
    site = msgspec.structs.replace(cluster(4), num_replicas=1)
    engine = msgspec.structs.replace(ENGINE, tensor_parallel_size=3)
    placed, hints = checked(NINE_HEADS, engine, site, "1")
    assert not hints
    assert [part.gpus for replica in placed.replicas for part in replica.parts] == [(0, 1, 2)]
