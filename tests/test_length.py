"""How long a run is expected to take, against its wall limit."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from cli import fast, latest, set_arguments, submit
from plans import plan_of
from test_checks import slurm as slurm  # a fixture

from sut.launch import checks
from sut.plan import keys
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, Plan
from sut.results.length import Length
from sut.run import length


def on_a30(*sets: str, scenario: Scenario = Scenario.SERVER, **options: object) -> Plan:
    """The official run on one A30."""
    given = {"preset": Preset.OFFICIAL, "mode": Mode.PERFORMANCE, **options}
    sets = tuple(keys.full(change, scenario) for change in sets)
    return plan_of("llama3.1-8b", scenario, site="jw", sets=sets, **given)  # type: ignore[arg-type]


def expected(plan: Plan, root: Path) -> Length:
    found = length.expect(plan, root)
    assert isinstance(found, Length), found
    return found


def test_the_tests_of_a_met_load_take_its_time(tmp_path: Path) -> None:
    found = expected(on_a30("target_qps=2"), tmp_path)
    assert found.tests_s == pytest.approx(13_368 / 2, rel=0.02)
    assert "A30" in found.source and found.startup_s is None


def test_more_than_the_engines_complete_takes_longer_than_planned(tmp_path: Path) -> None:
    """The wall limit is planned with the load; an A30 completes some 3 queries/s."""
    plan = on_a30("target_qps=40")
    assert plan.slurm is not None and plan.slurm.time_min < 60
    made = checks.run_length(plan, length.expect(plan, tmp_path))
    assert made.ok and "the run is expected to take about " in made.warning
    (allowed,) = [word for word in made.warning.split() if "time_min=" in word]
    larger = on_a30("target_qps=40", allowed.rstrip(";"))
    assert not checks.run_length(larger, length.expect(larger, tmp_path)).warning


@pytest.mark.usefixtures("slurm")
def test_a_dry_run_shows_the_length(tmp_path: Path) -> None:
    arguments = ["--config", "llama3.1-8b", "--site", "jw", "--preset", "official", "--dry-run"]
    run = submit(tmp_path, *arguments, *set_arguments(["target_qps=40"]))
    assert re.search(
        r"WARN +length +about .* in its tests, loading .* a wall limit",
        " ".join(run.stdout.split()),
    )
    assert "warning: the run is expected to take" in run.stderr
    unknown = submit(tmp_path, *arguments, *set_arguments(["site.slurm.gres=gpu:b900"]))
    assert re.search(r"- +length +not checked: no run under", " ".join(unknown.stdout.split()))


def test_only_a_length_that_certainly_exceeds_the_limit_is_refused(tmp_path: Path) -> None:
    plan = on_a30("target_qps=2", "site.slurm.time_min=180")
    long = Length(
        tests_s=10_800.0, startup_s=100.0, source="step times of run x", fastest="at best"
    )
    certain = msgspec.structs.replace(long, shortest_s=10_801.0)
    (problem,) = checks.run_length(plan, certain).problems
    for text in (
        "100 s besides",
        "limit of 180 min",
        "step times of run x",
        "3 h at best",
        "time_min=",
    ):
        assert text in str(problem)
    doubtful = checks.run_length(plan, msgspec.structs.replace(long, shortest_s=8_000.0))
    assert doubtful.ok and "hint: allow more time" in doubtful.warning
    fits = checks.run_length(plan, msgspec.structs.replace(long, tests_s=8_000.0))
    assert fits.ok and not fits.warning


def test_a_table_refuses_only_what_no_engine_can_do(tmp_path: Path) -> None:
    """Offline, planned for 40 samples/s: an A30 completes some 3.7, and at its peak 8 times that
    with one token an answer."""
    plan = on_a30("target_qps=40", scenario=Scenario.OFFLINE)
    found = expected(plan, tmp_path)
    assert found.shortest_s is not None and found.shortest_s < found.tests_s / 2
    assert checks.run_length(plan, found).warning
    hopeless = on_a30("target_qps=400", scenario=Scenario.OFFLINE)
    assert checks.run_length(hopeless, length.expect(hopeless, tmp_path)).problems


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (on_a30("site.slurm.gres=gpu:b900"), "are in no table"),
        (on_a30("site.slurm.gres=gpu"), "are in no table"),
        (on_a30("target_qps=5000"), "queries take too long to simulate"),
    ],
)
def test_what_is_unknown_is_not_checked(plan: Plan, text: str, tmp_path: Path) -> None:
    made = checks.run_length(plan, length.expect(plan, tmp_path))
    assert made.ok is None and made.text.startswith("not checked: ") and text in made.text


def test_auto_is_simulated_at_the_least_it_offers(tmp_path: Path) -> None:
    found = expected(on_a30("target_qps=auto"), tmp_path)
    assert found.load.endswith("the least that auto offers")
    assert found.tests_s > 2 * expected(on_a30("target_qps=2.7"), tmp_path).tests_s
    tuned = msgspec.structs.replace(on_a30("target_qps=auto"), tune=True)
    assert expected(tuned, tmp_path).load == "a search with one trial"
    swept = expected(on_a30(sweep=(1.0, 2.0)), tmp_path)
    assert swept.tests_s == pytest.approx(13_368 * 1.5, rel=0.02)


def test_a_run_of_the_same_engines_is_believed_first(tmp_path: Path) -> None:
    assert submit(tmp_path, *fast(), *set_arguments(["target_qps=auto"])).returncode in (0, 1)
    plan, root = latest(tmp_path).plan, (tmp_path / "runs").resolve()
    found = expected(plan, root)
    assert found.source.startswith("step times of run ")
    startup_s = sum(step.duration_s for step in latest(tmp_path).timings) - sum(
        step.duration_s for step in latest(tmp_path).timings if step.name == "performance"
    )
    assert found.startup_s == pytest.approx(startup_s)
    longer = msgspec.structs.replace(plan.settings_at(1000.0), min_query_count=200_000)
    many = msgspec.structs.replace(plan, loadgen_settings=longer)
    assert expected(many, root).tests_s > 10 * found.tests_s
    others = msgspec.structs.replace(plan, engine=plan_of("replay").engine)
    assert "no run under" in str(length.expect(others, root))
    assert "no run under" in str(length.expect(plan, tmp_path / "empty"))
