"""sut.submit --again: the same plan digest, and a line for each change since."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import records
from cli import ROOT, fast, latest, submit
from plans import plan_of

from sut.errors import InputError
from sut.launch import again, newrun
from sut.machine import environment
from sut.results import record
from sut.results.record import Hashes
from sut.rundir import RunDir


def test_repeats_the_plan_of_a_run(tmp_path: Path) -> None:
    assert submit(tmp_path, *fast()).returncode == 0
    first = latest(tmp_path)
    run = submit(tmp_path, "--again", "runs/latest")
    assert run.returncode == 0, run.stderr
    second = latest(tmp_path)
    assert second.plan_digest == first.plan_digest and second.run_id != first.run_id
    assert "differs" not in run.stdout


def test_refuses_a_plan_changed_after_the_run(tmp_path: Path) -> None:
    assert submit(tmp_path, *fast()).returncode == 0
    plan = tmp_path / "runs/latest/plan.json"
    plan.write_text(plan.read_text().replace('"target_qps": 800', '"target_qps": 801'))
    run = submit(tmp_path, "--again", "runs/latest")
    assert run.returncode == 2 and "the plan was changed after the run" in run.stderr


def test_reports_data_that_changed(tmp_path: Path) -> None:
    before = records.completed()
    data = tmp_path / "data.json"
    data.write_text("[]")
    dataset = msgspec.structs.replace(before.plan.dataset, path=str(data))
    plan = msgspec.structs.replace(before.plan, dataset=dataset)
    changed = msgspec.structs.replace(before, hashes=Hashes(data="0" * 64))
    (line,) = again.differences(changed, plan)
    assert line.startswith("data_sha256: 000000000000 -> ")


def test_refuses_a_plan_of_another_version(tmp_path: Path) -> None:
    plan = newrun.create(plan_of("replay"), tmp_path).plan
    text = plan.read_text()
    assert again.plan_of(RunDir(plan.parent))[0] == plan_of("replay")
    plan.write_text(text.replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(InputError, match=r"schema version 1; this program reads 2\nhint: submit"):
        again.plan_of(RunDir(plan.parent))


def test_refuses_a_folder_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory"):
        again.plan_of(RunDir(tmp_path))
    record.write(records.completed(), RunDir(tmp_path))
    RunDir(tmp_path).plan.write_text("{}")
    with pytest.raises(InputError, match="not a plan of this version"):
        again.plan_of(RunDir(tmp_path))


def test_refuses_options_that_the_plan_fixes(tmp_path: Path) -> None:
    fixed = ("--scenario", "server", "--preset", "quick", "--set", "x=1")
    run = submit(tmp_path, "--again", "runs/latest", *fixed)
    assert run.returncode == 2
    options = "--scenario, --preset, --set"
    assert f"{options} cannot be combined with --again: the earlier plan fixes them" in run.stderr


def test_refuses_options_that_a_campaign_fixes(tmp_path: Path) -> None:
    campaign = str(ROOT / "configs/campaigns/devcluster-validation.yaml")
    run = submit(tmp_path, "--config", campaign, "--nodes", "jw2", "--dry-run")
    assert run.returncode == 2
    assert "--nodes cannot be combined with a campaign: its file fixes it" in run.stderr


def test_reports_local_changes_to_the_same_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = "5" * 40
    before = records.completed()
    dirty = environment.Git(commit=commit, dirty=True)
    before = msgspec.structs.replace(
        before, environment=msgspec.structs.replace(before.environment, git=dirty)
    )
    monkeypatch.setattr(environment, "git", lambda: environment.Git(commit=commit, dirty=False))
    assert again.differences(before, before.plan) == ["git.dirty: True -> False"]
