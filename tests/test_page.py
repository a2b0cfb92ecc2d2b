"""The page of a dry run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from plans import plan_of

from sut import _core
from sut.launch import page
from sut.launch.finding import Finding
from sut.plan import mlperf_conf
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, Plan


def llama(scenario: Scenario) -> Plan:
    sets = ("site.slurm.max_time_min=9999",)
    return plan_of("llama3.1-8b", scenario, preset=Preset.OFFICIAL, site="jw", sets=sets)


@pytest.mark.parametrize(
    ("scenario", "limits", "size"),
    [
        (
            Scenario.SERVER,
            "TTFT p99 2,000 ms, TPOT p99 100 ms",
            "at least 10 min and the number of queries as in mlperf.conf",
        ),
        (
            Scenario.INTERACTIVE,
            "TTFT p99 500 ms, TPOT p99 30 ms",
            "at least 10 min and the number of queries as in mlperf.conf",
        ),
        (Scenario.OFFLINE, "none", "at least 10 min and 13,368 samples"),
    ],
)
def test_shows_mlperfs_limits(scenario: Scenario, limits: str, size: str) -> None:
    shown = page.of(llama(scenario), ())
    assert (shown.limits, shown.size) == (limits, size)


def test_knows_what_loadgens_mlperf_conf_sets() -> None:
    binary = Path(_core.__file__).read_bytes()
    place = binary.index(b"*.*.qsl_rng_seed")
    text = binary[binary.rindex(b"\0", 0, place) + 1 : binary.index(b"\0", place)].decode()
    linked = mlperf_conf.parse(text)  # the linked LoadGen's
    models = {"*", *mlperf_conf.MODELS}
    model_of = {name: name.rsplit(".", 2)[0] for name in linked}
    of_these = {name: text for name, text in linked.items() if model_of[name] in models}
    assert mlperf_conf.values() == of_these
    assert set(model_of.values()) - models == mlperf_conf.OTHERS


def test_prefers_a_plans_setting_to_mlperf_confs() -> None:
    plan = plan_of("llama3.1-8b", site="jw", sets=("scenarios.server.ttft_latency_ms=9000",))
    shown = page.of(plan, ())
    assert shown.limits == "TTFT p99 9,000 ms, TPOT p99 100 ms"
    assert shown.size == "at least 60 s and 470 queries"


def test_a_quick_tests_size_is_its_shorter_limit() -> None:
    plan = plan_of("llama3.1-8b", preset=Preset.QUICK, site="jw")
    ended = "ended at 10 queries, even if that is sooner"
    assert plan.loadgen_settings.max_query_count == 10
    assert page.of(plan, ()).size.endswith(f"; {ended}")


def test_an_accuracy_test_issues_each_sample_once() -> None:
    plan = msgspec.structs.replace(plan_of("replay"), mode=Mode.ACCURACY)
    assert page.of(plan, ()).size == "500 samples, each once"


def test_marks_failed_checks_and_those_not_made() -> None:
    failed, unknown = Finding("image", "/x.sif"), Finding("account", "not checked", made=False)
    failed.problems.add("cannot read the image", hint="build it")
    shown = page.of(plan_of("replay"), (failed, unknown, Finding("cache", "/c")))
    lines = page.render(shown).splitlines()[-3:]
    assert lines == [
        "checked     NOT OK  image    /x.sif",
        "            -       account  not checked",
        "            ok      cache    /c",
    ]
    assert shown.checks[0].problems == ("cannot read the image\nhint: build it",)


def test_names_the_nodes_that_slurm_chooses_from() -> None:
    shown = page.of(llama(Scenario.SERVER), ())
    assert shown.nodes == "1 node (any of jw[2-3]), 1 replica of 1 GPU"
    assert (
        shown.wall_limit_min is not None
        and f"wall limit {shown.wall_limit_min:,} min" in page.render(shown)
    )
