"""The doctor checks the nodes of a site and starts no engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cli import environment

from sut.results.record import read


def doctor(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut.doctor", *arguments],
        cwd=cwd,
        env=environment(),
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
