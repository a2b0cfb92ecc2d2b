"""The site is found by the cluster the command is typed on."""

from __future__ import annotations

import pytest

from sut.errors import InputError
from sut.launch import default_site
from sut.plan import config
from sut.plan.site import Site, SiteNode, SiteSlurm

JW = Site(name="jw", nodes=(SiteNode(name="jw2"), SiteNode(name="jw3")), slurm=SiteSlurm())
DEV = Site(name="dev", nodes=JW.nodes, slurm=SiteSlurm(cluster="devcluster"))
SITES = {"jw": JW, "dev": DEV, "local": Site(name="local")}


def test_a_cluster_is_known_by_its_name_before_its_nodes() -> None:
    assert default_site.matching(SITES, "devcluster", {"jw2", "jw3"}) == ["dev"]
    assert default_site.matching(SITES, "elsewhere", {"jw2", "jw3", "jw4"}) == ["jw"]
    assert default_site.matching(SITES, "elsewhere", {"jw2"}) == []
    assert default_site.matching({**SITES, "two": JW}, "", {"jw2", "jw3"}) == ["jw", "two"]


def test_without_slurm_it_is_this_machine_and_a_variable_names_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert default_site.default() == "local"
    monkeypatch.setenv("SUT_SITE", "jw")
    assert default_site.default() == "jw"


def test_a_cluster_that_no_site_describes_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(default_site.slurm, "is_here", lambda: True)
    monkeypatch.setattr(default_site.slurm, "cluster_name", lambda: "")
    monkeypatch.setattr(default_site.slurm, "node_names", lambda: {"gpu01"})
    with pytest.raises(InputError, match=r"template\.yaml"):
        default_site.default()


def test_the_sites_we_ship_are_found_by_name() -> None:
    assert {"local", "jw", "devcluster", "template"} <= set(config.sites())
