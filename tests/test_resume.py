"""The wall limit, and runs that continue where an earlier attempt ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import until
from jobs import LONG, Job, plan_for, write_plan
from records import accuracy, completed, rewrite

from sut.errors import RunError
from sut.machine import checkout, environment
from sut.machine.environment import Git, Gpu
from sut.plan.plan import Mode
from sut.results import attempts, verification
from sut.rundir import RunDir

# Some seconds a phase.
SLOW = ("scenarios.server.target_qps=200",)


def test_keeps_measurements_near_the_wall_limit(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *LONG), tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring()
        # Slurm signals every process of the step, sometimes twice.
        for _ in range(2):
            for pid in (job.engine_of(0), job.engine_of(1), job.nodes[1].pid, job.nodes[0].pid):
                os.kill(pid, signal.SIGUSR2)
        assert job.wait(20) == {0: 3, 1: 0}
    record = job.record
    assert record.status == "truncated" and record.verdict is None and record.phases == ()
    assert record.failure is not None and record.failure.code == "truncated"
    assert record.interrupted is not None and record.interrupted.name == "performance"
    assert record.interrupted.dispatcher.completed > 0
    assert all(replica.samples > 0 for replica in record.interrupted.replicas)
    assert run_dir.report.read_text().startswith("# TRUNCATED")
    assert "Performance: not finished" in run_dir.report.read_text()
    detail = (run_dir.loadgen("performance") / "mlperf_log_detail.txt").read_text()
    assert ":::MLLOG" in detail and detail.endswith("\n")
    assert job.processes() == []


def test_truncates_a_run_whose_engines_still_load(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, "engine.replay.faults=[never-ready]"), tmp_path / "run")
    with Job(run_dir, 1) as job:
        until(lambda: any("waiting for replica" in line.step for line in job.lines()))
        job.signal(0, signal.SIGUSR2)
        assert job.wait(20) == {0: 3}
    assert job.record.status == "truncated" and job.record.interrupted is None


def test_a_requeued_run_repeats_the_interrupted_phase(tmp_path: Path) -> None:
    plan = plan_for(2, *SLOW, mode=Mode.ALL)
    run_dir = write_plan(plan, tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring("accuracy")
        job.signal(1, signal.SIGKILL)
        assert job.wait(20)[0] == 3
    (measured,) = job.record.phases
    before = run_dir.replica_log(0).read_text()
    with Job(run_dir, 2, attempt=1) as again:
        assert again.wait() == {0: 0, 1: 0}, again.output(0)
    record = again.record
    assert record.verdict == "VALID"
    assert [phase.name for phase in record.phases] == ["performance", "accuracy", "compliance"]
    assert record.phases[0] == measured
    assert "performance" not in [step.name for step in record.timings]
    assert [(each.restart, each.status) for each in record.attempts] == [
        (0, "failed"),
        (1, "completed"),
    ]
    assert record.attempts[0].failure is not None
    assert record.attempts[0].failure.code == "node_lost"
    assert record.created_utc == record.attempts[0].started_utc
    folders = sorted(path.name for path in run_dir.loadgen("x").parent.iterdir())
    assert folders == ["accuracy", "accuracy.interrupted-1", "compliance", "performance"]
    assert (run_dir.logs / "attempt-1" / "replica-0.log").read_text() == before
    assert "## Attempts" in run_dir.report.read_text()


def test_an_attempt_finds_a_killed_earlier_one(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1), tmp_path / "run")
    long = write_plan(plan_for(1, *LONG), tmp_path / "long")
    with Job(long, 1) as job:
        job.until_measuring()
        job.signal(0, signal.SIGKILL)
        job.wait()
    for left in ("attempts.json", "loadgen", "logs"):
        (long.root / left).rename(run_dir.root / left)
    with Job(run_dir, 1, attempt=1) as again:
        assert again.wait() == {0: 0}, again.output(0)
    first, second = again.record.attempts
    assert (first.status, first.ended_utc) == (None, None)
    assert (second.status, second.restart) == ("completed", 1)
    assert (run_dir.loadgen("performance.interrupted-1")).is_dir()
    assert "no exit recorded (killed, or power loss)" in run_dir.report.read_text()


def test_every_node_refuses_a_complete_run(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2) as job:
        assert job.wait() == {0: 0, 1: 0}
    kept = run_dir.record.read_bytes()
    with Job(run_dir, 2, attempt=1) as again:
        assert again.wait() == {0: 2, 1: 2}
    for index in (0, 1):
        assert f"python -m sut.submit --again {run_dir}" in again.output(index)
    assert run_dir.record.read_bytes() == kept


def test_refuses_to_continue_with_a_changed_plan(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, "engine.replay.faults=[die@20]"), tmp_path / "run")
    with Job(run_dir, 1) as job:
        assert job.wait() == {0: 3}
    write_plan(plan_for(1), run_dir.root)
    with Job(run_dir, 1) as again:
        assert again.wait() == {0: 2}
    assert "its plan was changed" in again.output(0)


def test_starts_no_engine_after_the_last_phase(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2) as job:
        assert job.wait() == {0: 0, 1: 0}
    job_record = job.record
    _as_if_killed_after_the_last_phase(run_dir)
    with Job(run_dir, 2, attempt=1) as again:
        assert again.wait() == {0: 0, 1: 0}, again.output(0)
    assert again.record.verdict == "VALID"
    assert "load" not in [step.name for step in again.record.timings]
    assert again.record.hashes == job_record.hashes and again.record.hashes.data
    assert again.record.preflight == job_record.preflight != ()


def test_refuses_to_mix_phases_of_two_images(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(1, *SLOW, mode=Mode.ALL), tmp_path / "run")
    with Job(run_dir, 1, env={0: {"SUT_IMAGE_SHA256": "a" * 64}}) as job:
        job.until_measuring("accuracy")
        job.signal(0, signal.SIGUSR2)
        assert job.wait() == {0: 3}
    with Job(run_dir, 1, attempt=1, env={0: {"SUT_IMAGE_SHA256": "b" * 64}}) as again:
        assert again.wait() == {0: 3}
    failure = again.record.failure
    assert failure is not None and failure.code == "changed"
    assert "image_sha256: aaaaaaaaaaaa -> bbbbbbbbbbbb" in failure.message
    with Job(run_dir, 1, attempt=2, env={0: {"SUT_IMAGE_SHA256": "a" * 64}}) as right:
        assert right.wait() == {0: 0}, right.output(0)
    assert right.record.environment.image_sha256 == "a" * 64
    verified = verification.verify(right.record, run_dir)
    assert verified.differences == verified.unchecked == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_refuses_to_mix_phases_of_two_core_counts(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *SLOW, mode=Mode.ALL), tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring("accuracy")
        job.signal(0, signal.SIGUSR2)
        assert job.wait() == {0: 3, 1: 0}
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        with Job(run_dir, 2, attempt=1) as smaller:
            assert smaller.wait() == {0: 3, 1: 0}
    finally:
        os.sched_setaffinity(0, usable)
    failure = smaller.record.failure
    assert failure is not None and failure.code == "changed"
    assert f"num_usable_cpus: {len(usable)} -> 1" in failure.message
    with Job(run_dir, 2, attempt=2) as right:
        assert right.wait()[0] == 0, right.output(0)
    assert [each.num_usable_cpus for each in right.record.nodes] == [len(usable)]


def test_records_the_environment_of_each_phase(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *SLOW, mode=Mode.ALL), tmp_path / "run")
    _interrupt(run_dir, "accuracy", 2, env={0: {"CUDA_VISIBLE_DEVICES": "1"}})
    with Job(run_dir, 2, attempt=1, env={0: {"CUDA_VISIBLE_DEVICES": "2"}}) as again:
        assert again.wait() == {0: 0, 1: 0}, again.output(0)
    found = {p.name: [e.variables for e in p.environments] for p in again.record.phases}
    seen = {name: [each.get("CUDA_VISIBLE_DEVICES") for each in of] for name, of in found.items()}
    assert seen == {"performance": ["1", None], "accuracy": ["2", None], "compliance": ["2", None]}
    report = run_dir.report.read_text()
    assert "CUDA_VISIBLE_DEVICES=1" in report and "CUDA_VISIBLE_DEVICES=2" in report


def test_refuses_to_mix_phases_of_two_environments(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *SLOW, mode=Mode.ALL), tmp_path / "run")
    _interrupt(run_dir, "accuracy", 2)
    with Job(run_dir, 2, attempt=1, env={1: {"OMP_WAIT_POLICY": "active"}}) as again:
        assert again.wait() == {0: 3, 1: 0}
    record = again.record
    assert record.failure is not None and record.failure.code == "changed"
    assert "variables.OMP_WAIT_POLICY: none -> active" in record.failure.message
    assert [phase.name for phase in record.phases] == ["performance"]


def test_refuses_to_mix_phases_of_two_sources(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkout.PACKAGE, copy / "sut", ignore=shutil.ignore_patterns("__pycache__"))
    run_dir = write_plan(plan_for(1, *SLOW, mode=Mode.ALL), tmp_path / "run")
    here = {0: ["env", "-C", str(copy)]}
    _interrupt(run_dir, "accuracy", within=here)
    (copy / "sut" / "units.py").open("a").write("# changed\n")
    with Job(run_dir, 1, attempt=1, within=here) as again:
        assert again.wait() == {0: 3}, again.output(0)
    failure = again.record.failure
    assert failure is not None and "source_sha256: " in failure.message


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"git": Git(commit="b" * 40, dirty=False)}, "git.commit: "),
        ({"gpu_driver": "560.1"}, "gpu_driver: none -> 560.1"),
        ({"gpus": (Gpu(name="A30", uuid="1", memory_mib=1),)}, "gpus: none -> A30 1 MiB"),
        ({"packages": {"torch": "0"}}, "packages.torch: "),
        ({"cpu_model": "another"}, "cpu_model: "),
        ({"hostname": "another", "kernel": "1", "memory_gib": 1.0}, ""),
    ],
)
def test_hosts_may_differ_but_not_what_computes(
    changes: dict[str, Any], key: str, tmp_path: Path
) -> None:
    here = environment.collect()
    (phase,) = completed(accuracy(30.0)).phases
    done = completed(msgspec.structs.replace(phase, environments=(here,)))
    now = (msgspec.structs.replace(here, **changes),)
    with pytest.raises(RunError, match=key) if key else contextlib.nullcontext():
        attempts.require_same(attempts.Earlier(record=done), done.hashes, now, RunDir(tmp_path))


def _interrupt(run_dir: RunDir, phase: str, num_nodes: int = 1, **how: Any) -> None:
    """Run it until it measures ``phase``. ``how`` is as in :class:`Job`."""
    with Job(run_dir, num_nodes, **how) as job:
        job.until_measuring(phase)
        job.signal(0, signal.SIGUSR2)
        assert job.wait()[0] == 3, job.output(0)


def _as_if_killed_after_the_last_phase(run_dir: RunDir) -> None:
    document = msgspec.json.decode(run_dir.record.read_bytes())
    document |= {"status": "failed", "verdict": None}
    rewrite(run_dir.record, document)
