"""The doctor checks the nodes of a site and starts no engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli import ROOT, environment

from sut.machine.environment import VLLM, versions
from sut.results.record import read
from sut.serving import first_hour


def doctor(cwd: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut.doctor", *arguments],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_prints_each_check_of_a_healthy_machine(tmp_path: Path) -> None:
    run = doctor(tmp_path, "--site", "local", "--config", "replay")
    assert run.returncode == 0, run.stdout + run.stderr
    (folder,) = (tmp_path / "runs").iterdir()  # no link: `latest` is a run that measures
    record = read(folder)
    assert folder.name.endswith("-preflight") and "preflight of 1 node for replay" in run.stdout
    assert run.stdout.startswith(f"checking this machine: {folder}\n")
    assert record.phases == () and record.verdict is None and record.preflight
    for check in record.preflight[0].checks:
        assert check.ok and check.name in run.stdout


def test_names_a_failed_check_and_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text("name: gpu\ndevice: cuda\n")
    run = doctor(tmp_path, "--site", "gpu.yaml", "--config", "replay")
    assert run.returncode == 3
    assert "NOT OK" in run.stdout and "gpu" in run.stdout


NVIDIA_SMI = """#!/bin/sh
case $1 in
-L) echo 'GPU 0: NVIDIA A30 (UUID: GPU-00000000-0000-0000-0000-000000000000)'
    echo 'GPU 1: NVIDIA A30 (UUID: GPU-11111111-1111-1111-1111-111111111111)';;
--query-gpu=*) echo "0, NVIDIA A30, 580.65.06, 24576 MiB, 4 MiB, $FAKE_MODE, Disabled";;
--query-compute-apps=*) printf "$FAKE_APPS";;
topo) printf '\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tNV4\t X \n';;
esac
"""


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The variables of a process on a node with two GPUs, whose Python has no CUDA."""
    source, library = Path(__file__).parent / "fake_driver.c", tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    shutil.copy(library, tmp_path / "libnvidia-ml.so.1")
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "apptainer").write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
    for name in ("nvidia-smi", "apptainer"):
        (tmp_path / name).chmod(0o755)
    return {
        "LD_LIBRARY_PATH": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "FAKE_MODE": "Default",
        "CUDA_VISIBLE_DEVICES": "0,1",
    }


def results(output: str) -> dict[str, str]:
    """What was printed of each command, from its ``ok`` on."""
    lines = output.splitlines()
    starts = [i for i, line in enumerate(lines) if not line.startswith(" " * 8)]
    ends = [*starts[1:], len(lines)]
    return {
        lines[i][8:]: "\n".join(
            [lines[i][:6].strip(), *(line.strip() for line in lines[i + 1 : end])]
        )
        for i, end in zip(starts, ends, strict=True)
    }


def test_runs_the_commands_of_the_first_hour(tmp_path: Path, node: dict[str, str]) -> None:
    site = tmp_path / "mine.yaml"
    site.write_text("name: mine\ndevice: cuda\ncontainer: {image: /x.sif}\n")
    run = doctor(tmp_path, "--gpu", "--site", str(site), **node)
    found = results(run.stdout)
    commands = [step.command for step in first_hour.STEPS]
    assert list(found) == [*commands, first_hour.by_hand(str(site))], run.stdout + run.stderr
    assert found["nvidia-smi -L"] == "ok\n2 NVIDIA A30"
    assert found[commands[2]] == "ok\nno process computes on a GPU"
    assert found["nvidia-smi topo -m"] == "-\nNVLink: NV4 2 times"
    assert "MiB 24576, free 2048" in found["python -m sut.machine.cuda"]
    meters = found["python -m sut.machine.meters"]
    assert meters == "ok\nGPU 0: every reading\nGPU 1: no energy_j, utilization"
    assert found[commands[-1]] == "ok\n2 NVIDIA A30"
    # The environment of the tests has the CPU's torch and vLLM.
    assert found[commands[6]] == "NOT OK\ntorch is built for the CPU"
    (installed,) = versions(VLLM).values()
    assert found[commands[7]] == f"ok\n{installed}"
    ok, text = first_hour._vllm("0.99.0")
    assert ok is None and "not a tested version" in text
    assert first_hour._vllm("") == (False, "vLLM is not installed for this Python")
    assert run.returncode == 3


def test_names_what_a_gpu_node_has_wrong(tmp_path: Path, node: dict[str, str]) -> None:
    changes = {"FAKE_MODE": "Prohibited", "FAKE_APPS": "4711, 100 MiB, GPU-1\n"}
    changes |= {"FAKE_REFUSE": "ComputeRunningProcesses=4"}
    found = results(doctor(tmp_path, "--gpu", **(node | changes)).stdout)
    commands = list(found)
    assert found[commands[1]].startswith("NOT OK\n0, NVIDIA A30")
    assert found[commands[2]] == "NOT OK\n4711, 100 MiB, GPU-1"
    refused = found["python -m sut.machine.cuda"]
    assert refused.startswith("ok\n") and "Insufficient Permissions" in refused
    assert found[commands[-2]] == "-\nno container: give --site"


def test_the_last_command_has_the_site_given() -> None:
    assert "--site jw " in first_hour.by_hand("jw") and "mine.yaml" in first_hour.by_hand("")


def test_a_machine_without_gpus_fails_the_first_hour(tmp_path: Path) -> None:
    run = doctor(tmp_path, "--gpu", PATH=str(Path(sys.executable).parent))
    found = results(run.stdout)
    assert run.returncode == 3 and "Traceback" not in run.stderr
    assert found["nvidia-smi -L"] == "NOT OK\nnvidia-smi: No such file or directory"
    assert "NVIDIA driver not found" in found["python -m sut.machine.cuda"]
    assert found["python -m sut.machine.meters"] == "-\nno GPU"
    assert run.stderr == ""


def test_a_login_node_is_not_a_gpu_node(tmp_path: Path) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    folders = f"{tmp_path}:{Path(sys.executable).parent}"
    run = doctor(tmp_path, "--gpu", PATH=folders, SLURM_JOB_ID="")
    assert run.returncode == 3 and "hint: on a GPU node: srun --gres=gpu:1" in run.stderr


def test_the_docs_have_every_command_of_the_first_hour() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    for command in (*(step.command for step in first_hour.STEPS), first_hour.by_hand("")):
        assert f"`{command}`" in page, command
