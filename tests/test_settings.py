"""LoadGen gets the plan's settings and no others, and its log is compared with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cli import environment, fast, latest, set_arguments, submit
from loadgen_logs import smallest_valid, with_value
from plans import plan_of
from records import PLAN_OF_SMALLEST_VALID

from sut.plan import mlperf_conf
from sut.plan.benchmark import Preset, Scenario, ScenarioSettings
from sut.plan.plan import Mode, Plan
from sut.results import mllog, settings
from sut.results.mllog import DetailLog
from sut.results.rules import Check

ROOT = Path(__file__).parent.parent

# In its own process, because LoadGen's thread keeps running. LoadGen logs its settings at once.
LOGGED = """
import os, sys, time
from replay import served
from sut import _core

model, scenario, mode, conf, audit, folder, num = sys.argv[1:]
with served(int(num), 1, "--fault", "stall@1") as dispatcher:
    test = _core.LoadGenTest(dispatcher, model=model, scenario=scenario, mode=mode, user_conf=conf,
        audit_conf=audit, log_dir=folder, sut_name="s", qsl_name="q")
    test.start()
    test.wait(0.5)
    dispatcher.fail("interrupted", "")
    test.wait(5)
    os._exit(0)
"""


def logged(plan: Plan, mode: Mode, folder: Path) -> DetailLog:
    """What the linked LoadGen logs for a test of ``plan``."""
    audit = mlperf_conf.audit_config(plan.compliance_test(mode), plan.dataset.num_samples)
    test = Mode.ACCURACY if mode is Mode.ACCURACY else Mode.PERFORMANCE
    words = [plan.loadgen_name, plan.scenario.loadgen, test, plan.user_conf(), audit, str(folder)]
    subprocess.run(
        [sys.executable, "-c", LOGGED, *words, str(plan.dataset.num_samples)],
        env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"),
        timeout=60,
        check=True,
    )
    log = mllog.read_so_far(folder / mllog.FILE_NAME)
    assert log is not None
    return log


def official(scenario: Scenario, benchmark: str = "llama3.1-8b") -> Plan:
    return plan_of(benchmark, scenario, preset=Preset.OFFICIAL, site="jw", nodes="jw2")


@pytest.mark.parametrize(
    ("benchmark", "scenario", "mode"),
    [
        ("llama3.1-8b", Scenario.SERVER, Mode.PERFORMANCE),
        ("llama3.1-8b", Scenario.INTERACTIVE, Mode.ACCURACY),
        ("llama3.1-8b", Scenario.OFFLINE, Mode.PERFORMANCE),
        ("llama3.1-8b", Scenario.OFFLINE, Mode.COMPLIANCE),
        ("llama3.1-8b-edge", Scenario.SINGLE_STREAM, Mode.PERFORMANCE),
        ("llama3.1-8b-edge", Scenario.OFFLINE, Mode.PERFORMANCE),
    ],
)
def test_knows_every_setting_that_loadgen_logs(
    benchmark: str, scenario: Scenario, mode: Mode, tmp_path: Path
) -> None:
    plan = official(scenario, benchmark)
    assert plan.official
    checks = settings.check(logged(plan, mode, tmp_path), plan, mode)
    assert [(check.code, check.met) for check in checks] == [
        ("planned_settings", True),
        ("official_settings", True),
    ], checks


def check(change: Callable[[str], str], tmp_path: Path) -> Check:
    text = (smallest_valid() / mllog.FILE_NAME).read_text()
    (tmp_path / mllog.FILE_NAME).write_text(change(text))
    log = mllog.read_so_far(tmp_path / mllog.FILE_NAME)
    assert log is not None
    (found,) = settings.check(log, PLAN_OF_SMALLEST_VALID, Mode.PERFORMANCE)
    return found


def test_finds_a_change_of_every_setting_in_the_log(tmp_path: Path) -> None:
    assert check(lambda text: text, tmp_path).met
    values = mllog.read(smallest_valid()).values
    keys = [key for key in values if key.startswith(("requested_", "effective_", "qsl_reported_"))]
    assert len(keys) > 50
    for key in keys:
        value = values[key]
        other = not value if isinstance(value, bool) else f"{value}1" * isinstance(value, str)
        found = check(with_value(key, other or (value or 0) + 1), tmp_path)  # type: ignore[operator]
        assert not found.met and key in found.text, (key, found.text)


def test_an_unknown_or_missing_setting_is_a_difference(tmp_path: Path) -> None:
    found = check(lambda text: text.replace("requested_max_query", "requested_new"), tmp_path)
    assert "requested_max_query_count is not logged, not 0" in found.text
    assert "requested_new_count is 0, but unknown" in found.text


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"target_qps": 3.0}, True),
        ({"min_duration_ms": 700_000, "min_query_count": 20_000}, True),
        ({"min_duration_ms": 500_000}, False),
        ({"ttft_latency_ms": 9_000}, False),
        ({"max_query_count": 10}, False),
        ({"performance_sample_count": 100}, False),
    ],
)
def test_an_official_plan_may_change_only_what_the_round_allows(
    change: dict[str, float], allowed: bool
) -> None:
    plan = official(Scenario.SERVER)
    plan = msgspec.structs.replace(
        plan, loadgen_settings=msgspec.structs.replace(plan.loadgen_settings, **change)
    )
    values = {"loadgen_version": "6.0.17", **settings.of_plan(plan, Mode.PERFORMANCE)}
    log = DetailLog(path="", values=values, errors=())
    checks = {each.code: each for each in settings.check(log, plan, Mode.PERFORMANCE)}
    assert checks["planned_settings"].met
    assert checks["official_settings"].met is allowed, checks["official_settings"].text


def test_an_edited_user_conf_does_not_reach_loadgen(tmp_path: Path) -> None:
    """A run with the plan's limits, however its folder was edited before it began."""
    sets = set_arguments(["scenarios.server.min_query_count=600"])
    run = submit(tmp_path, *fast(), *sets, "--mode", "performance")
    assert run.returncode == 0, run.stdout + run.stderr
    first = tmp_path / "runs" / "latest"
    for file in ("record.json", "attempts.json", "progress.jsonl"):
        (first / file).unlink()
    loose = (first / "user.conf").read_text().replace("count = 600", "count = 1")
    assert "min_query_count = 1\n" in loose
    (first / "user.conf").write_text(loose)
    again = subprocess.run(
        [sys.executable, "-m", "sut.run", str(first.resolve())],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    found = latest(tmp_path)
    assert found.phases[0].loadgen["requested_min_query_count"] == 600
    assert (first / "user.conf").read_text() == found.user_conf


def test_settings_of_a_model_that_is_not_in_the_table_are_not_judged() -> None:
    log = mllog.read(smallest_valid())
    plan = msgspec.structs.replace(PLAN_OF_SMALLEST_VALID, loadgen_name="whisper")
    assert settings.check(log, plan, Mode.PERFORMANCE) == []


def test_a_run_on_other_settings_is_invalid(tmp_path: Path) -> None:
    """A log of a test with looser settings than the plan's is not VALID, though LoadGen says so."""
    log = mllog.read(smallest_valid())
    plan = msgspec.structs.replace(
        PLAN_OF_SMALLEST_VALID,
        loadgen_settings=msgspec.structs.replace(
            PLAN_OF_SMALLEST_VALID.loadgen_settings, min_query_count=10_000
        ),
    )
    (found,) = settings.check(log, plan, Mode.PERFORMANCE)
    assert not found.met
    assert "requested_min_query_count is 480, not 10000" in found.text
    assert json.loads(json.dumps(log.values))["result_validity"] == "VALID"


def test_test07_has_the_size_of_its_own_data() -> None:
    sets = ["site.device=cuda", "site.models={gpt-oss-120b: /m}"]
    sets += ["site.datasets={gpt-oss-120b-compliance: /c}"]
    plan = plan_of("gpt-oss-120b", Scenario.OFFLINE, sets=sets, mode=Mode.TEST07)
    plan = msgspec.structs.replace(plan, loadgen_settings=ScenarioSettings(target_qps=1))
    logged = settings.of_plan(plan, Mode.TEST07)
    assert logged["effective_samples_per_query"] == 990
    assert settings._below_round(logged, plan, Mode.TEST07) == []
    key = "requested_performance_sample_count_override"
    (wrong,) = settings._below_round(logged | {key: 989}, plan, Mode.TEST07)
    assert wrong == f"{key} is 989, not 990"
