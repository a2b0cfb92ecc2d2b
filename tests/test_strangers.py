"""A stranger on the machine neither reads, nor answers, nor ends a run, nor fills its memory."""

from __future__ import annotations

import resource
from pathlib import Path

import msgspec
import psutil
import pytest
from cli import until
from jobs import Job, as_root, plan_for, write_plan
from plans import plan_of
from strangers import crowd, ports_of, stranger

from sut.plan.plan import Mode
from sut.serving import keys

MIB = 2**20


@as_root
def test_a_stranger_who_knows_every_port_changes_nothing(tmp_path: Path) -> None:
    plan = plan_for(1, "scenarios.server.min_duration_ms=8000")
    with Job(write_plan(plan, tmp_path / "run"), 1) as job:
        job.until_measuring()
        head, engine = job.nodes[0].pid, job.engine_of(0)
        key_file = psutil.Process(engine).environ()[keys.VARIABLE]
        secret = keys.read(key_file).secret
        for word in (secret, key_file):
            assert word not in " ".join(psutil.Process(engine).cmdline())
        files = [Path(key_file), Path(f"/proc/{engine}/environ")]
        assert len(ports_of(head)) == 3
        before = peak_bytes(head)
        with stranger(ports_of(head), files) as end:
            # It has sent a frame of 1 GiB to each port. LoadGen's logs take some MiB.
            assert peak_bytes(head) - before < 128 * MIB
            assert set(job.wait().values()) == {0}, job.output(0)
            end.send("end")
            assert end.recv() == []
    assert job.record.verdict == "VALID"
    engines, (phase,) = job.record.engines, job.record.phases
    assert engines is not None and engines.refused_connections > 0
    assert phase.dispatcher is not None
    assert phase.replicas[0].samples == phase.dispatcher.completed == phase.dispatcher.issued
    assert f"{engines.refused_connections} connections of other programs" in (
        job.run_dir.report.read_text()
    )


@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bind", ["", "nobind"])  # vLLM in one process, and in its own three
def test_a_stranger_changes_nothing_for_vllm(tmp_path: Path, bind: str) -> None:
    few = ["min_duration_ms=8000", "min_query_count=12", "target_qps=2"]
    plan = plan_of("smollm2-135m-news", sets=[f"scenarios.server.{each}" for each in few])
    env = {"VLLM_CPU_OMP_THREADS_BIND": bind} if bind else {}
    plan = msgspec.structs.replace(plan, mode=Mode.PERFORMANCE, env={**plan.env, **env})
    with Job(write_plan(plan, tmp_path / "run"), 1) as job:
        until(lambda: any(line.completed for line in job.lines()), timeout_s=400)
        head = job.nodes[0].pid
        with stranger(ports_of(head), []) as end:
            job.wait(100)
            end.send("end")
            assert end.recv() == []
    record = job.record
    assert record.status == "completed", job.output(0)
    assert record.engines is not None and record.engines.refused_connections > 0
    (phase,) = record.phases
    assert phase.dispatcher is not None
    assert phase.dispatcher.completed == phase.dispatcher.issued >= 12


def test_a_crowd_ends_no_run(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("the hard limit of file descriptors is too low")
    run_dir = write_plan(plan_for(1, "scenarios.server.min_duration_ms=3000"), tmp_path / "run")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # the usual limit
    try:
        job = Job(run_dir, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with job:
        job.until_measuring()
        with crowd(ports_of(job.nodes[0].pid), 3000):
            assert job.wait() == {0: 0}, job.output(0)
    assert job.record.engines is not None and job.record.engines.refused_connections > 3000


def test_a_run_without_strangers_refuses_nobody(tmp_path: Path) -> None:
    with Job(write_plan(plan_for(2), tmp_path / "run"), 2) as job:
        assert set(job.wait().values()) == {0}, job.output(0)
    assert job.record.engines is not None and job.record.engines.refused_connections == 0


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) * 1024
