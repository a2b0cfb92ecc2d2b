"""Every command names a run in the same ways, from any folder."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import fast, submit

from sut import batch, cancel, compare, package
from sut import submit as submit_command
from sut import verdict as verdict_command
from sut.cluster import runs
from sut.errors import InputError
from sut.launch.options import find_run, run_root
from sut.launch.request import RunRequest, make_plan
from sut.report.__main__ import main as report
from sut.results import mllog
from sut.rundir import RunDir
from sut.watch.__main__ import main as watch

PACKAGE = ["--submitter", "Example", "--division", "open"]

# Each prints the folder of the run that it found.
COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str], str]] = {
    "watch": (watch, ["--json"], "{run}"),
    "report": (report, ["--only-html"], "{run}/report.html"),
    "cancel": (cancel.main, [], "the run is not active ({run}): it has ended, VALID"),
    "compare": (compare.main, [], "{name} has no earlier run"),
    "package": (package.main, PACKAGE, "cannot be submitted"),
    "submit": (submit_command.main, ["--dry-run", "--again"], "again {name}: plan"),
    "batch": (batch.main, [], "this run is complete ({run})"),
    "verdict": (verdict_command.main, [], "VALID  (Server"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a VALID run, and the latest one, which is not VALID."""
    folder = tmp_path_factory.mktemp("project")
    assert submit(folder, *fast()).returncode == 0
    assert submit(folder, *fast(), "--preset", "quick").returncode == 1
    return folder


@pytest.fixture(scope="module")
def valid(project: Path) -> RunDir:
    (name,) = (n for n in runs.names(project / "runs") if n.endswith("smoke"))
    return RunDir(project / "runs" / name)


@pytest.fixture(autouse=True)
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """sut.batch runs only there."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SUT_NODES", "localhost")


def ways(run: RunDir) -> dict[str, str]:
    job_id = runs.job_of(run)
    assert job_id is not None
    return {
        "name": run.root.name,
        "path": os.path.relpath(run.root),
        "file": str(run.record),
        "job": job_id,
    }


@pytest.mark.parametrize("way", ["name", "path", "file", "job"])
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_takes_a_run_by(
    name: str,
    way: str,
    valid: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUT_RUN_ROOT", str(valid.root.parent))
    main, options, expected = COMMANDS[name]
    main([*options, ways(valid)[way]])
    printed = "".join(capsys.readouterr())
    assert expected.format(run=valid, name=valid.root.name) in printed
    assert "no such run" not in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_suggests_the_nearest_run(
    name: str,
    valid: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SUT_RUN_ROOT", str(valid.root.parent))
    main, options, _ = COMMANDS[name]
    assert main([*options, valid.root.name.replace("smoke", "smke")]) == 2
    printed = capsys.readouterr().err
    assert "no such run" in printed and f"hint: did you mean {valid.root.name}?" in printed


def test_latest_is_the_newest_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert find_run("latest", argparse.Namespace()).root.name.endswith("quick")
    assert verdict_command.main(["latest"]) == 1


def test_a_prefix_is_a_suggestion_only(valid: RunDir) -> None:
    with pytest.raises(InputError, match=f"did you mean {valid.root.name}"):
        runs.find(valid.root.name[:-1], valid.root.parent)


@pytest.mark.parametrize(
    ("name", "what", "command"),
    [
        ("logs", "logs is a folder of LoadGen's logs, not a run directory", "sut.verdict logs"),
        ("log.txt", "log.txt is a file, not a run directory", "sut.history --root"),
        ("empty", "empty is not a run directory: it has no plan.json", "sut.history --root"),
    ],
)
def test_names_what_is_no_run(
    name: str, what: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / mllog.FILE_NAME).touch()
    (tmp_path / "log.txt").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(what)) as caught:
        runs.find(name, tmp_path)
    assert command in str(caught.value).partition("\nhint: ")[2]


def test_names_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=f"latest: no such run .* no run under {tmp_path}\nhint: start one"
    ):
        runs.find("latest", tmp_path)
    with pytest.raises(InputError, match=r"is not a run directory: it has no plan\.json"):
        runs.find(str(tmp_path), tmp_path)
    (tmp_path / runs.CAMPAIGN).touch()
    campaign = f"{tmp_path} is a campaign, not a run\nhint: python -m sut.campaign {tmp_path};"
    with pytest.raises(InputError, match=re.escape(campaign)):
        runs.find(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("watch", ["nope"]),
        ("cancel", ["latest"]),
        ("compare", ["latest"]),
        ("verdict", ["nope"]),
        ("submit", ["--again", "nope"]),
    ],
)
def test_hints_can_be_pasted_whatever_a_folder_is_called(
    name: str,
    typed: list[str],
    valid: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder with spaces, quotes and an umlaut is one word of a shell."""
    root = tmp_path / "it's \N{LATIN SMALL LETTER U WITH DIAERESIS} & more"
    shutil.copytree(valid.root, root / valid.root.name)
    (root / "latest").symlink_to(valid.root.name)
    monkeypatch.setenv("SUT_RUN_ROOT", str(root))
    COMMANDS[name][0](typed)
    hint = capsys.readouterr().err.partition("\nhint: ")[2]
    words = shlex.split(hint.strip())
    assert any(word.startswith(str(root)) and Path(word).exists() for word in words), hint


def root_of(**options: object) -> Path:
    return run_root(argparse.Namespace(**options))


def new_root(**request: object) -> Path:
    return make_plan(RunRequest(benchmark="replay", site="local", **request))[1]  # type: ignore[arg-type]


def test_option_variable_and_site_choose_the_run_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUT_SITE", "local")
    assert root_of() == new_root() == tmp_path / "runs"
    (other := tmp_path / "other.yaml").write_text("name: other\nrun_root: /others\n")
    assert root_of(site=str(other)) == Path("/others")
    monkeypatch.setenv("SUT_RUN_ROOT", "~/mine")
    assert root_of() == new_root() == Path("~/mine").expanduser()
    # Runs submitted with --site are found with --site.
    assert root_of(site=str(other)) == Path("~/mine").expanduser()
    assert make_plan(RunRequest(benchmark="replay", site=str(other)))[1] == root_of()
    assert new_root(sets=("site.run_root=/set",)) == Path("/set")
    assert root_of(root=Path("given")) == new_root(root="given") == tmp_path / "given"
    assert new_root(root="given", sets=("site.run_root=/set",)) == tmp_path / "given"


def test_finds_the_runs_of_a_parent_folder(
    project: Path, valid: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "some" / "folder"
    below.mkdir(parents=True)
    for folder in (below, project / "runs", valid.root):
        monkeypatch.chdir(folder)
        assert root_of() == project / "runs"
    (below / "runs").mkdir()
    monkeypatch.chdir(below)
    assert root_of() == below / "runs"


def test_writes_a_new_run_to_the_root(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--preset", "quick", "--root", "elsewhere")
    assert run.returncode == 1 and not (tmp_path / "runs").exists()
    again = submit(tmp_path, "--again", "latest", "--root", "elsewhere")
    assert again.returncode == 1, again.stderr
    assert len(runs.names(tmp_path / "elsewhere")) == 2


def test_the_link_to_a_deleted_run_names_it_and_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("20260102T000000Z-x")
    with pytest.raises(InputError) as error:
        runs.find("latest", tmp_path)
    gone = f"latest is 20260102T000000Z-x, whose folder {tmp_path} no longer has"
    assert str(error.value).startswith(gone) and "the newest run" not in str(error.value)
    other = tmp_path / "20260101T000000Z-x"
    other.mkdir()
    (other / "plan.json").write_text("{}")
    with pytest.raises(InputError, match=f"the newest run that is left: {other.name}; all runs: "):
        runs.find("latest", tmp_path)
