"""A run on its host: the nodes of its job, and another attempt after a lost node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import records
from cli import ROOT, environment
from plans import plan_of

from sut import batch, job, nightly, requeue, submit
from sut.cluster import allocation
from sut.cluster.allocation import Allocation
from sut.cluster.sbatch import Submission
from sut.errors import InputError
from sut.launch import executor, newrun
from sut.launch.members import Planned
from sut.launch.notices import NOBODY
from sut.machine import checkout, modules
from sut.plan.benchmark import Preset
from sut.plan.plan import Plan
from sut.results import record
from sut.results.record import Attempt, Failure
from sut.run import __main__ as run
from sut.rundir import RunDir

SCONTROL = """#!/bin/sh
if [ "$1 $2" = "show hostnames" ]; then echo "$3" | tr , '\\n'; else echo "$*" >>"$0.calls"; fi
"""


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's command, faked at the process boundary; it records its arguments in ``.calls``."""
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
        ("jw2", "job 7 has 1 (jw2)\nhint: sbatch '--nodelist=jw[2-3]'"),
        ("jw2,jw4", "the plan is for 2 nodes (jw[2-3]), but job 7 has 2 (jw[2,4])"),
    ],
)
def test_refuses_a_job_with_other_nodes(
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
    printed = capsys.readouterr().err
    assert text in printed and f"slurm/multi.sh {run_dir}" in printed
    assert_recorded(run_dir, "bad_input", text, exit_code=2)


def assert_recorded(run_dir: RunDir, code: str, text: str, *, exit_code: int) -> None:
    """Whether the run has a record and reports of one attempt of job 7 that failed."""
    found = record.read(run_dir.record)
    assert (found.status, found.exit_code, found.verdict) == ("failed", exit_code, None)
    assert found.failure is not None and found.failure.code == code, found.failure
    assert text in found.failure.message
    (attempt,) = found.attempts
    assert (attempt.job_id, attempt.status, attempt.failure) == ("7", "failed", found.failure)
    assert attempt.ended_utc is not None
    assert text.partition("\n")[0] in run_dir.report.read_text()
    assert run_dir.report_html.is_file()


@pytest.mark.usefixtures("scontrol")
def test_runs_only_on_nodes_that_slurm_may_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = msgspec.structs.replace(plan_of("replay", site="devcluster"), container=None)
    run_dir = newrun.create(plan, tmp_path / "runs")
    in_job(monkeypatch, "jw9")
    assert job.main([str(run_dir)]) == 2
    assert "is for 1 node (any of jw[2-3]), but job 7 has 1 (jw9)" in capsys.readouterr().err
    allocation.check(plan, Allocation(job_id="7", nodes=("jw3",)), run_dir)


def test_refuses_a_cluster_plan_outside_a_job(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = newrun.create(plan, tmp_path / "runs")
    assert job.main([str(run_dir)]) == 2
    assert "this process is not in a Slurm job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "script"), [(batch.main, "slurm/single.sh"), (nightly.main, "slurm/nightly.sh")]
)
def test_names_the_script_to_submit_outside_a_job(
    main: Callable[[list[str]], int],
    script: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main([]) == 2
    assert capsys.readouterr().err.endswith(f"hint: submit a job: sbatch {ROOT / script}\n")
    assert (ROOT / script).is_file()


def test_refuses_a_missing_image(
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
    assert_recorded(run_dir, "bad_input", f"{image}: No such file", exit_code=2)


@pytest.mark.parametrize(
    ("code", "of_attempt", "attempt", "requeued"),
    [
        ("node_lost", 0, 0, True),
        ("node_lost", 2, 2, False),
        ("node_lost", 0, 1, False),
        ("engine_died", 0, 0, False),
    ],
)
def test_requeues_only_lost_nodes_up_to_the_limit(
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
    failure = Failure(code=code, message="jw3 was lost")
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
    calls = Path(f"{scontrol}.calls")
    assert calls.exists() == requeued
    assert not requeued or calls.read_text() == "requeue 7\n"


def test_refuses_a_folder_without_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.main([str(RunDir(tmp_path))]) == 2
    assert "is not a run directory: it has no plan.json" in capsys.readouterr().err


@pytest.mark.parametrize("main", [job.main, requeue.main, run.main])
@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), ([], 2)])
def test_describes_the_run_directory_argument(
    main: Callable[[list[str]], int],
    argv: list[str],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    printed = capsys.readouterr()
    assert left.value.code == code and "RUN_DIR" in printed.out + printed.err


@pytest.mark.parametrize("main", [batch.main, nightly.main])
def test_prints_help_outside_a_job(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--scenario" in capsys.readouterr().out


@pytest.mark.usefixtures("scontrol")
def test_refuses_options_that_a_job_cannot_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_job(monkeypatch, "jw2")
    assert batch.main(["--nodes", "2", "--no-wait", "--config", "replay"]) == 2
    assert "error: --nodes, --no-wait cannot be used inside a job\nhint:" in capsys.readouterr().err


@pytest.mark.parametrize("main", [batch.main, nightly.main])
def test_refuses_options_for_an_existing_run(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["latest", "--preset", "quick"])
    assert "run latest has a plan: options cannot change it" in capsys.readouterr().err


@pytest.mark.usefixtures("scontrol")
def test_uses_the_sites_cache_without_a_container(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_job(monkeypatch, "jw2,jw3")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf %s "$SUT_CACHE" >{tmp_path / "cache"}\n')
    python.chmod(0o755)
    plan = msgspec.structs.replace(plan, cache="/big/cache")
    run_dir = newrun.create(plan, tmp_path / "runs")
    # In a separate process: a job ignores signals, and the processes of these tests would too.
    code = f"import sys; from sut import job; sys.executable = {str(python)!r}; "
    code += f"sys.exit(job.main([{str(run_dir)!r}]))"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    assert (tmp_path / "cache").read_text() == "/big/cache"


@pytest.mark.parametrize(
    ("visible", "text"),
    [
        ("0", "the run needs 2 GPUs, but CUDA_VISIBLE_DEVICES lists 1"),
        ("MIG-377e0049-554c-540b-93c6-d0976f8426cb", "CUDA_VISIBLE_DEVICES lists 1"),
        ("NoDevFiles", "not a list of GPU numbers or UUIDs: 'NoDevFiles'"),
        ("0,-1", "not a list of GPU numbers or UUIDs: '-1'"),
    ],
)
def test_refuses_gpus_that_are_not_visible(
    visible: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["site.device=cuda", "site.num_replicas=2"]
    plan = plan_of("smollm2-135m-news", sets=sets)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(InputError, match=text):
        executor.check(plan, Submission())
    for enough in ("2,3", "GPU-aaaa,GPU-bbbb", "MIG-aaaa, MIG-bbbb"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", enough)
        executor.check(plan, Submission())


SUBMITTED = "sbatch --nodes=2 /home/you/slurm/multi.sh --set 'a=[1]'"


@pytest.mark.parametrize(
    ("answer", "command"),
    [
        ("echo /home/you/slurm/multi.sh", SUBMITTED),
        ("echo \"/home/you/slurm/multi.sh --set 'a=[1]'\"", SUBMITTED),
        ("exit 1", "python"),  # this process: the job's script is not known
    ],
)
def test_a_batch_job_records_how_it_was_submitted(
    answer: str,
    command: str,
    plan: Plan,
    scontrol: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["batch.py", "--set", "a=[1]"])
    squeue = scontrol.with_name("squeue")
    squeue.write_text(f"#!/bin/sh\n{answer}\n")
    squeue.chmod(0o755)
    allocation = Allocation(job_id="7", nodes=("jw2", "jw3"))
    run_dir = batch._of_this_job(plan, tmp_path / "runs", NOBODY, allocation)
    found = record.command_of(run_dir)
    assert found is not None and found.folder == os.getcwd()
    assert found.text == command or (command == "python" and command in found.text)


def test_names_the_modules_that_a_run_lacks() -> None:
    modules.require(("msgspec", "sut._core"))
    with pytest.raises(InputError, match=r"missing no_such, nor_this\nhint: make -C .* build"):
        modules.require(("msgspec", "no_such", "nor_this"))


def test_a_python_without_the_core_prints_no_traceback(tmp_path: Path) -> None:
    """As a login node's environment, or an installation without extras."""
    shutil.copytree(ROOT / "sut", tmp_path / "sut", ignore=shutil.ignore_patterns("_core*.so"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    env = environment(PYTHONPATH=str(tmp_path))
    for words in (["sut.run", "runs/x"], ["sut.submit", "--config", "replay"], ["sut.doctor"]):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert "missing sut._core" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    planned = "sut.submit --config replay --site devcluster --set site.container=null --dry-run"
    done = subprocess.run(
        [sys.executable, "-m", *planned.split()],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert "the C++ core, which simulates it, is not in this environment" in " ".join(
        done.stdout.split()
    )


def test_a_core_of_other_sources_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sut", tmp_path / "sut")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "csrc").symlink_to(ROOT / "csrc")
    env = environment(PYTHONPATH=str(tmp_path))

    def started(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    submit = ("sut.submit", "--config", "replay", "--preset", "quick")
    current = started("sut.run", "runs/x")
    assert "is not a run directory" in current.stderr and "C++ core" not in current.stderr
    (tmp_path / "csrc").unlink()
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "wire.cc").write_text("// pulled\n")
    for words in (("sut.run", "runs/x"), submit):
        old = started(*words)
        assert old.returncode == 2 and "built from other sources" in old.stderr, old.stderr
        assert f"hint: make -C {tmp_path} build" in old.stderr and not (tmp_path / "runs").exists()


def test_tests_and_texts_are_no_sources_of_the_core(tmp_path: Path) -> None:
    assert checkout.core_sources(tmp_path) == ""  # an installed package
    (tmp_path / "csrc" / "tests").mkdir(parents=True)
    (tmp_path / "csrc" / "wire.cc").write_text("1")
    before = checkout.core_sources(tmp_path)
    (tmp_path / "csrc" / "tests" / "test_wire.cc").write_text("1")
    (tmp_path / "csrc" / "README.md").write_text("1")
    assert checkout.core_sources(tmp_path) == before
    (tmp_path / "csrc" / "wire.cc").write_text("2")
    assert checkout.core_sources(tmp_path) != before


def test_warns_before_an_official_run_of_changed_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "changes", lambda: [f"sut/{n}.py" for n in range(7)])
    plan = plan_of("replay", preset=Preset.OFFICIAL)
    submit.warn_of_changes([Planned("", plan, tmp_path)])
    printed = capsys.readouterr().err
    assert printed.startswith("warning: sut.package will refuse this run")
    assert "(sut/0.py, sut/1.py, sut/2.py, sut/3.py, sut/4.py, ...)" in printed
    for unchanged in (
        msgspec.structs.replace(plan, preset=Preset.SMOKE),
        plan_of("replay", site="devcluster", preset=Preset.OFFICIAL),  # the image's source runs
    ):
        submit.warn_of_changes([Planned("", unchanged, tmp_path)])
    monkeypatch.setattr(checkout, "changes", list)
    submit.warn_of_changes([Planned("", plan, tmp_path)])
    assert capsys.readouterr().err == ""
