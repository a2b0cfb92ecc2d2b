"""The exact command lines of Slurm and Apptainer, with paths that are hard to quote."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from cli import until
from plans import plan_of

from sut import batch
from sut.cluster import container, sbatch
from sut.cluster.sbatch import Submission, parameters
from sut.launch.executor import load_submitit
from sut.plan.plan import OnReplicaLoss, Plan
from sut.rundir import RunDir

GOLDEN = Path(__file__).parent / "golden"
HARD = '/shared/it\'s "my" runs, all/one run'
SETS = (
    'site.container.binds=["/data/a b"]',
    "site.slurm.partition=gpu",
    "site.slurm.time_min=90",
    "site.slurm.cpus_per_task=8",
    'site.slurm.sbatch={reservation: "o\'clock"}',
    "site.cache=/shared/a cache",
)


@pytest.fixture
def with_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit detects a cluster by a program of this name."""
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def plan() -> Plan:
    return plan_of("smollm2-135m-news", site="devcluster", nodes="all", sets=SETS)


@pytest.fixture(autouse=True)
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "PYTHON")


def sbatch_text(run_dir: RunDir) -> str:
    submitit = load_submitit()
    executor = submitit.SlurmExecutor(folder=run_dir.job, python="PYTHON")
    submission = Submission(begin="now+1hour", dependency="singleton")
    executor.update_parameters(**parameters(plan(), run_dir, submission))
    return executor._make_submission_file_text(executor._submitit_command_str, "uid")


@pytest.mark.usefixtures("with_srun")
def test_the_batch_script_is_the_golden_file() -> None:
    assert sbatch_text(RunDir(HARD)) == (GOLDEN / "distributed.sbatch").read_text()


def test_the_last_command_follows_the_step_after_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    last = tmp_path / "python"
    last.write_text(f'#!/bin/sh\necho "last $3" >>{log}\n')
    last.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(last))
    setup = parameters(plan(), RunDir("/runs/one"), Submission())["setup"]
    step = f"trap '' TERM; echo begin >>{log}; until [ -e {go} ]; do sleep 0.02; done"
    words = ["sh", "-c", f"{step}; echo end >>{log}; exit 3"]
    script = tmp_path / "script.sh"
    script.write_text("\n".join([*setup, shlex.join(words)]))
    env = {**os.environ, "SLURM_CPUS_PER_TASK": "1"}
    with subprocess.Popen(["bash", script], env=env) as job:
        until(log.is_file)
        job.terminate()
        pending = Path(f"/proc/{job.pid}/status")
        until(lambda: int(pending.read_text().partition("ShdPnd:")[2].split()[0], 16) == 0)
        go.touch()
    assert job.returncode == 3
    assert log.read_text() == "begin\nend\nlast /runs/one\n"


@pytest.mark.usefixtures("with_srun")
def test_a_shell_reads_back_the_quoted_paths() -> None:
    run_dir = RunDir(HARD)
    text = sbatch_text(run_dir)
    command = next(line for line in text.splitlines() if line.startswith("srun "))
    assert str(run_dir.job) in shlex.split(command)
    assert f"--comment={run_dir}" in " ".join(shlex.split(text, comments=False))


def test_the_container_binds_only_what_is_needed() -> None:
    argv = container.argv(
        plan(),
        Path(HARD),
        Path("/images/an image.sif"),
        Path("/tmp/sut-1"),
        ["python3", "-m", "sut.run", HARD],
    )
    assert argv == [
        *("apptainer", "--silent", "exec", "--containall", "--workdir", "/tmp/sut-1"),
        *("--pwd", "/tmp"),
        *("--mount", "type=bind,source=/data/a b,destination=/data/a b,ro"),
        "--mount",
        "type=bind,"
        '"source=/shared/it\'s ""my"" runs, all/one run",'
        '"destination=/shared/it\'s ""my"" runs, all/one run"',
        *("--mount", "type=bind,source=/shared/a cache,destination=/shared/a cache"),
        *("--mount", "type=bind,source=/dev/shm,destination=/dev/shm"),
        "/images/an image.sif",
        *("python3", "-m", "sut.run", HARD),
    ]


def test_a_gpu_run_binds_its_model_read_only(tmp_path: Path) -> None:
    jw = plan_of(
        "llama3.1-8b", site="jw", nodes="jw2", sets=('site.models."Llama-3.1-8B-Instruct"=/m',)
    )
    argv = container.argv(jw, tmp_path, Path("x.sif"), tmp_path, ["true"])
    assert "--nv" in argv
    assert "type=bind,source=/m,destination=/m,ro" in argv


@pytest.mark.parametrize(
    ("folder", "bound"),
    [
        ("/hub/models--org--M/snapshots/abc", "/hub/models--org--M"),
        ("/hub/models--org--M/snapshots/abc/original", "/hub/models--org--M"),
        ("/hub/snapshots/abc", "/hub/snapshots/abc"),
        ("/data/models--org--M", "/data/models--org--M"),
    ],
)
def test_a_snapshot_is_bound_with_its_blobs(tmp_path: Path, folder: str, bound: str) -> None:
    sets = (f'site.models."Llama-3.1-8B-Instruct"={folder}',)
    jw = plan_of("llama3.1-8b", site="jw", nodes="jw2", sets=sets)
    assert jw.container is not None
    assert container.binds(jw, jw.container, tmp_path)[0] == (bound, False)


def test_the_container_gets_slurms_variables_and_caches() -> None:
    host = {
        "SLURM_JOB_ID": "7",
        "SLURM_NODEID": "1",
        "SUT_NODES": "jw2,jw3",
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_PRELOAD": "/host/only.so",
    }
    inside = container.environment(plan(), host, "jw3")
    assert inside["APPTAINERENV_SLURM_JOB_ID"] == "7"
    assert inside["APPTAINERENV_SUT_NODES"] == "jw2,jw3"
    assert inside["APPTAINERENV_CUDA_VISIBLE_DEVICES"] == "0"
    assert inside["APPTAINERENV_SUT_CACHE"] == "/shared/a cache"
    assert inside["APPTAINERENV_VLLM_CACHE_ROOT"] == "/shared/a cache/compiled/jw3/vllm"
    assert "APPTAINERENV_LD_PRELOAD" not in inside


@pytest.mark.parametrize("prefix", ["APPTAINER", "SINGULARITY"])
def test_the_callers_settings_of_apptainer_are_dropped(prefix: str) -> None:
    names = ("ENV_LD_PRELOAD", "_BIND", "_BINDPATH", "_OVERLAY", "_NO_MOUNT", "_WRITABLE_TMPFS")
    host = {"PATH": "/bin"} | {f"{prefix}{name}": "/x" for name in names}
    found = container.environment(plan(), {**host, "APPTAINER_TMPDIR": "/scratch"}, "jw3")
    assert found["PATH"] == "/bin" and found["APPTAINER_TMPDIR"] == "/scratch"
    assert "/x" not in found.values()


def test_srun_starts_one_task_per_node() -> None:
    command = batch.srun(plan(), RunDir(HARD), 2)
    assert command[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert command[-4:] == ["-u", "-m", "sut.job", HARD] and sys.executable in command


# What squeue prints at each look: of a step, of none, or nothing where it does not answer.
STEP, NONE, NO_ANSWER = "echo 1.batch; echo 1.0", "echo 1.batch", "exit 1"


@pytest.mark.parametrize("replaced", [False, True], ids=["its child", "by exec"])
@pytest.mark.parametrize(
    ("looks", "killed"),
    [
        ([NONE, STEP, NONE, NO_ANSWER, NONE], True),
        ([STEP, NONE, STEP, NONE, STEP], False),
        ([NONE, NONE, NO_ANSWER, NO_ANSWER, STEP], False),
    ],
)
def test_an_srun_without_a_step_is_killed(
    tmp_path: Path, looks: list[str], killed: bool, replaced: bool
) -> None:
    """``looks`` is what squeue does at each of its calls, and then its last."""
    calls = tmp_path / "calls"
    calls.touch()
    cases = " ".join(f"{i}) {look};;" for i, look in enumerate([*looks, looks[-1]]))
    cases = cases.replace(f"{len(looks)})", "*)")
    squeue = f"n=$(wc -l <{calls}); echo >>{calls}; case $n in {cases} esac"
    for name, script in (("squeue", squeue), ("sleep", "exec /bin/sleep 0.02")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy("/bin/sleep", tmp_path / "srun")
    continues = msgspec.structs.replace(plan(), on_replica_loss=OnReplicaLoss.CONTINUE)
    command = ["srun", "60" if killed else "2"]
    if replaced:
        command = batch.after_setup(continues, command)
    else:
        lines = [*sbatch.end_srun(continues), f"{shlex.join(command)}; exit $?"]
        command = ["bash", "-c", "\n".join(lines)]
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "1"}
    with (tmp_path / "errors").open("w") as errors:
        done = subprocess.run(command, env=env, stderr=errors)
    died = -signal.SIGKILL if replaced else 128 + signal.SIGKILL
    assert done.returncode == (died if killed else 0)
    assert ("it is killed" in (tmp_path / "errors").read_text()) == killed
    until(lambda: len(looks) <= len(calls.read_text()))
    seen = calls.read_text()
    time.sleep(0.3)
    assert len(calls.read_text()) <= len(seen) + 1  # nobody looks after the end


@pytest.mark.parametrize("script", sorted((GOLDEN.parent.parent / "slurm").glob("*.sh")))
def test_batch_scripts_are_a_header_and_a_command(script: Path) -> None:
    lines = script.read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert len(lines) <= 30
    assert code[0] == "set -euo pipefail" and code[1].startswith("exec ") and len(code) == 2
    assert not any(word in script.read_text() for word in ("apptainer", "singularity", "--nv"))
    subprocess.run(["bash", "-n", script], check=True)
