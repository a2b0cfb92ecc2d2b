"""The caller's environment variables: which an engine gets, and which are on record."""

from __future__ import annotations

from pathlib import Path

import cli
from jobs import LONG, Job, plan_for, write_plan

from sut.machine import variables

DECIDING = {"VLLM_PLANTED": "1", "OMP_WAIT_POLICY": "passive", "NCCL_PLANTED": "2"}
OTHERS = {"AWS_SECRET": "hidden", "HF_TOKEN": "hidden", "VLLM_API_KEY": "hidden", "EDITOR": "vi"}


def test_an_engine_gets_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, *LONG), tmp_path / "run")
    with Job(run_dir, 1, env={0: DECIDING | OTHERS}) as job:
        job.until_measuring()
        given = Path(f"/proc/{job.engine_of(0)}/environ").read_text()
        names = {line.partition("=")[0] for line in given.split("\0")}
    assert {*DECIDING, "PATH", "PYTHONPATH", "VLLM_HOST_IP", "SLURM_JOB_ID"} <= names
    assert names.isdisjoint({*OTHERS, "COLUMNS", "SUT_NODES"}) and "hidden" not in given


def test_a_record_has_the_variables_that_can_change_a_result(tmp_path: Path) -> None:
    done = cli.submit(tmp_path, *cli.fast(), env=cli.environment(**DECIDING, **OTHERS))
    assert done.returncode == 0, done.stdout + done.stderr
    found = cli.latest(tmp_path).environment.variables
    assert found.items() >= DECIDING.items() and "PYTHONPATH" in found
    assert found.keys().isdisjoint({*OTHERS, "PATH"})
    report = (tmp_path / "runs" / "latest" / "report.md").read_text()
    assert "OMP_WAIT_POLICY=passive" in report and "hidden" not in report


def test_secrets_are_not_passed() -> None:
    secrets = ["HF_TOKEN", "VLLM_API_KEY", "NVIDIA_APIKEY", "TORCH_PASSWORD", "HF_MY_SECRET"]
    assert variables.for_engine(dict.fromkeys(secrets, "x")) == {}
    assert variables.for_engine({"TOKENIZERS_X": "x", "HF_HOME": "x"}) == {"HF_HOME": "x"}
