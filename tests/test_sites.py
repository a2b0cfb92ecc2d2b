"""The default site is that of the cluster on which the command runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.errors import InputError
from sut.launch import default_site, files
from sut.plan import config
from sut.plan.site import Site, SiteNode, SiteSlurm

JW = Site(name="jw", nodes=(SiteNode(name="jw2"), SiteNode(name="jw3")), slurm=SiteSlurm())
DEV = Site(name="dev", nodes=JW.nodes, slurm=SiteSlurm(cluster="devcluster"))
SITES = {"jw": JW, "dev": DEV, "local": Site(name="local")}


def test_matches_a_clusters_name_before_its_nodes() -> None:
    assert default_site.matching(SITES, "devcluster", {"jw2", "jw3"}) == ["dev"]
    assert default_site.matching(SITES, "elsewhere", {"jw2", "jw3", "jw4"}) == ["jw"]
    assert default_site.matching(SITES, "elsewhere", {"jw2"}) == []
    assert default_site.matching({**SITES, "two": JW}, "", {"jw2", "jw3"}) == ["jw", "two"]


def test_is_this_machine_without_slurm_or_sut_site(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert default_site.default() == "local"
    monkeypatch.setenv("SUT_SITE", "jw")
    assert default_site.default() == "jw"


def test_refuses_a_cluster_without_a_site(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(default_site.slurm, "is_here", lambda: True)
    monkeypatch.setattr(default_site.slurm, "cluster_name", lambda: "")
    monkeypatch.setattr(default_site.slurm, "node_names", lambda: {"gpu01"})
    with pytest.raises(
        InputError,
        match=r"no site matches this Slurm cluster\nhint: write one: python -m sut\.init",
    ):
        default_site.default()


def test_an_entry_of_equal_nodes_is_a_hostlist(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    nodes = "nodes: [{name: 'gpu[09-10]', gpus: 4}, {name: login}]"
    file.write_text(f"name: mine\nslurm: {{}}\n{nodes}\n")
    site = config.load_site(str(file))
    assert [(node.name, node.gpus) for node in site.nodes] == [
        ("gpu09", 4),
        ("gpu10", 4),
        ("login", 0),
    ]
    assert config.load("replay", str(file))[1].nodes == site.nodes


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("'gpu[1-'", "nodes: gpu[1-: unmatched ["),
        ("'a[1-2]'}, {name: a2", "nodes: duplicate node a2"),
    ],
)
def test_refuses_nodes_that_are_no_hostlist(tmp_path: Path, names: str, problem: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nslurm: {{}}\nnodes: [{{name: {names}}}]\n")
    for load in (lambda: config.load_site(str(file)), lambda: files.check(file)):
        with pytest.raises(InputError) as error:
            load()
        assert str(error.value) == f"{file}: {problem}"


def test_names_a_file_here_that_a_site_may_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for there, hint in ((False, "give a .yaml file"), (True, "the file here: --site mine.yaml")):
        if there:
            (tmp_path / "mine.yaml").touch()
        with pytest.raises(InputError, match="unknown site 'mine'") as error:
            config.find("sites", "mine")
        assert f"\nhint: {hint}" in str(error.value)


def test_finds_the_shipped_sites() -> None:
    found = set(config.sites())
    assert {"local", "jw", "devcluster"} <= found and "template" not in found
