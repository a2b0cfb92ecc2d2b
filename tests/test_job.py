"""A run on its host: the job has the plan's nodes, and a lost node gives another attempt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import records
from cli import environment
from plans import plan_of

from sut import batch, job, nightly, requeue
from sut.cluster.sbatch import Submission
from sut.errors import InputError
from sut.launch import executor, newrun
from sut.plan.plan import Plan
from sut.results import record
from sut.results.record import Attempt, Failure
from sut.run import __main__ as run
from sut.rundir import RunDir

SCONTROL = """#!/bin/sh
if [ "$1 $2" = "show hostnames" ]; then echo "$3" | tr , '\\n'; else echo "$*" >>"$0.said"; fi
"""


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's command, faked at the process boundary; what it is told is in ``.said``."""
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(SCONTROL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    return tool


@pytest.fixture
def plan() -> Plan:
    """A plan of two nodes, in no container, on the replay engine."""
    plan = plan_of("replay", site="devcluster", nodes="all")
    return msgspec.structs.replace(plan, container=None)


def in_job(monkeypatch: pytest.MonkeyPatch, nodes: str, *, attempt: int = 0) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", nodes)
    monkeypatch.setenv("SLURM_NODEID", "0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(attempt))


@pytest.mark.usefixtures("scontrol")
@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ("jw2", "job 7 has 1 (jw2). Ask for those: sbatch --nodes=2 --nodelist=jw2,jw3"),
        ("jw2,jw4", "the plan is for 2 nodes (jw2, jw3) and job 7 has 2 (jw2, jw4)"),
    ],
)
def test_a_job_with_other_nodes_than_the_plans_is_refused(
    plan: Plan,
    nodes: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = newrun.create(plan, tmp_path / "runs")
    in_job(monkeypatch, nodes)
    assert job.main([str(run_dir)]) == 2
    assert text in capsys.readouterr().err


def test_a_plan_for_a_cluster_is_not_run_outside_of_a_job(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = newrun.create(plan, tmp_path / "runs")
    assert job.main([str(run_dir)]) == 2
    assert "this is no Slurm job" in capsys.readouterr().err


def test_a_missing_image_is_told_with_how_to_build_it(
    tmp_path: Path,
    scontrol: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = tmp_path / "none.sif"
    sets = (f"site.container.image={image}", f"site.cache={tmp_path / 'cache'}")
    run_dir = newrun.create(
        plan_of("replay", site="devcluster", nodes="all", sets=sets), tmp_path / "runs"
    )
    in_job(monkeypatch, "jw2,jw3")
    assert job.main([str(run_dir)]) == 2
    assert f"{image}: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "of_attempt", "attempt", "requeued"),
    [
        ("node_lost", 0, 0, True),
        ("node_lost", 2, 2, False),
        ("node_lost", 0, 1, False),
        ("engine_died", 0, 0, False),
    ],
)
def test_only_a_lost_node_gives_another_attempt_and_not_for_ever(
    plan: Plan,
    code: str,
    of_attempt: int,
    attempt: int,
    requeued: bool,
    tmp_path: Path,
    scontrol: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = newrun.create(plan, tmp_path / "runs")
    failure = Failure(code=code, message="jw3 is lost")
    last = Attempt(
        job_id="7",
        restart=of_attempt,
        nodes=("jw2", "jw3"),
        started_utc="2026-01-01T00:00:00Z",
        failure=failure,
    )
    failed = msgspec.structs.replace(records.failed(failure), attempts=(last,))
    record.write(failed, run_dir)
    in_job(monkeypatch, "jw2,jw3", attempt=attempt)
    assert requeue.main([str(run_dir)]) == 0
    said = Path(f"{scontrol}.said")
    assert said.exists() == requeued
    assert not requeued or said.read_text() == "requeue 7\n"


def test_a_folder_without_a_plan_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.main([str(RunDir(tmp_path))]) == 2
    assert "holds no plan.json" in capsys.readouterr().err


@pytest.mark.parametrize("main", [job.main, requeue.main, run.main])
@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), ([], 2)])
def test_a_command_of_a_run_directory_says_what_it_takes(
    main: Callable[[list[str]], int],
    argv: list[str],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    said = capsys.readouterr()
    assert left.value.code == code and "RUN_DIR" in said.out + said.err


@pytest.mark.parametrize("main", [batch.main, nightly.main])
def test_a_batch_scripts_command_has_help_outside_of_a_job(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"]) == 0
    assert "options of python -m sut.submit" in capsys.readouterr().out


@pytest.mark.usefixtures("scontrol")
def test_a_run_without_a_container_has_the_sites_cache(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_job(monkeypatch, "jw2,jw3")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf %s "$SUT_CACHE" >{tmp_path / "cache"}\n')
    python.chmod(0o755)
    plan = msgspec.structs.replace(plan, cache="/big/cache")
    run_dir = newrun.create(plan, tmp_path / "runs")
    # In a process of its own: a job ignores signals, and so would all that these tests start.
    code = f"import sys; from sut import job; sys.executable = {str(python)!r}; "
    code += f"sys.exit(job.main([{str(run_dir)!r}]))"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    assert (tmp_path / "cache").read_text() == "/big/cache"


@pytest.mark.parametrize(
    ("visible", "text"),
    [("0", "2 GPUs are needed and CUDA_VISIBLE_DEVICES shows 1"), ("GPU-a,GPU-b", "numbers")],
)
def test_gpus_that_this_machine_does_not_show_are_told_before_anything_is_made(
    visible: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["site.device=cuda", "site.num_replicas=2"]
    plan = plan_of("smollm2-135m-news", sets=sets)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(InputError, match=text):
        executor.check(plan, Submission())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    executor.check(plan, Submission())
