"""What ran can be run again: the same plan digest, and what has changed is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import records
from cli import ROOT, fast, latest, submit

from sut.errors import InputError
from sut.launch import again
from sut.machine import environment
from sut.results import record
from sut.results.record import Hashes
from sut.rundir import RunDir


def test_a_run_again_has_the_same_plan_digest(tmp_path: Path) -> None:
    assert submit(tmp_path, *fast()).returncode == 0
    first = latest(tmp_path)
    run = submit(tmp_path, "--again", "runs/latest")
    assert run.returncode == 0, run.stderr
    second = latest(tmp_path)
    assert second.plan_digest == first.plan_digest and second.run_id != first.run_id
    assert "differs" not in run.stdout


def test_a_plan_that_was_changed_after_the_run_is_refused(tmp_path: Path) -> None:
    assert submit(tmp_path, *fast()).returncode == 0
    plan = tmp_path / "runs/latest/plan.json"
    plan.write_text(plan.read_text().replace('"target_qps": 800', '"target_qps": 801'))
    run = submit(tmp_path, "--again", "runs/latest")
    assert run.returncode == 2 and "the plan was changed after the run" in run.stderr


def test_what_is_not_as_it_was_is_told(tmp_path: Path) -> None:
    before = records.completed()
    data = tmp_path / "data.json"
    data.write_text("[]")
    dataset = msgspec.structs.replace(before.plan.dataset, path=str(data))
    plan = msgspec.structs.replace(before.plan, dataset=dataset)
    changed = msgspec.structs.replace(before, hashes=Hashes(data="0" * 64))
    (line,) = again.differences(changed, plan)
    assert line.startswith("the data's sha256 was 0000")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Give a run directory"):
        again.plan_of(RunDir(tmp_path))
    record.write(records.completed(), RunDir(tmp_path))
    RunDir(tmp_path).plan.write_text("{}")
    with pytest.raises(InputError, match="not a plan of this version"):
        again.plan_of(RunDir(tmp_path))


def test_options_that_the_plan_decides_are_refused_beside_it(tmp_path: Path) -> None:
    said = ("--scenario", "server", "--preset", "quick", "--set", "x=1")
    run = submit(tmp_path, "--again", "runs/latest", *said)
    assert run.returncode == 2
    assert "--scenario, --preset, --set can't be given with --again" in run.stderr


def test_options_that_a_campaign_decides_are_refused_beside_it(tmp_path: Path) -> None:
    campaign = str(ROOT / "configs/campaigns/devcluster-validation.yaml")
    run = submit(tmp_path, "--config", campaign, "--nodes", "jw2", "--dry-run")
    assert run.returncode == 2 and "--nodes can't be given with a campaign" in run.stderr


def test_local_changes_are_told_where_the_commit_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = "5" * 40
    before = records.completed()
    dirty = environment.Git(commit=commit, dirty=True)
    before = msgspec.structs.replace(
        before, environment=msgspec.structs.replace(before.environment, git=dirty)
    )
    monkeypatch.setattr(environment, "git", lambda: environment.Git(commit=commit, dirty=False))
    told = again.differences(before, before.plan)[-1]
    assert told.endswith("was 555555555555, with local changes and is 555555555555")
