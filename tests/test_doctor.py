"""The doctor looks at the nodes of a site and runs nothing."""

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


def test_a_healthy_machine_is_told_check_by_check(tmp_path: Path) -> None:
    run = doctor(tmp_path, "--site", "local", "--config", "replay")
    assert run.returncode == 0, run.stdout + run.stderr
    (folder,) = (tmp_path / "runs").iterdir()  # and no link: the latest run is one that measures
    record = read(folder)
    assert folder.name.endswith("-preflight") and "preflight of 1 node for replay" in run.stdout
    assert record.phases == () and record.verdict is None and record.preflight
    for check in record.preflight[0].checks:
        assert check.ok and check.name in run.stdout


def test_what_is_amiss_is_named_and_the_exit_code_tells(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text("name: gpu\ndevice: cuda\n")
    run = doctor(tmp_path, "--site", "gpu.yaml", "--config", "replay")
    assert run.returncode == 3
    assert "NOT OK" in run.stdout and "gpu" in run.stdout
