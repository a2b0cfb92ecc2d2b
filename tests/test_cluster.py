"""The test cluster itself: what other cluster tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import ROOT
from cluster.cluster import STATES, Cluster

from sut.cluster import liveness

IMAGE = "/opt/images/mlperf-sut-cpu.sif"


def test_a_job_runs_the_image_on_both_nodes(idle: Cluster) -> None:
    code = "import os, platform, sut._core; print(platform.node(), os.getuid())"
    done = idle.run(f"srun -N2 --gres=gpu:a30:1 apptainer exec {IMAGE} python3 -c '{code}'")

    assert sorted(done.stdout.splitlines()) == ["jw2 1500", "jw3 1500"], done.stderr
    assert until(lambda: last_state(idle), "COMPLETED")


def test_a_command_sees_the_project_on_every_node(idle: Cluster) -> None:
    assert idle.run("exit 7").returncode == 7
    assert idle.run("cd /tmp && python -c 'import sut, submitit'", node="jw3").returncode == 0
    assert idle.run("cd /tmp && sut --version", node="jw2").stdout.startswith("sut ")
    assert idle.run("touch /opt/mlperf-sut/x").returncode != 0


LOW_JOB = """\
#!/bin/bash
#SBATCH --qos=low --nodelist=jw2 --exclusive --requeue --output=low.txt --open-mode=append
echo start
srun bash -c 'trap "echo notice" TERM; for i in {1..100}; do sleep 1; done'
"""


@pytest.mark.long
def test_a_preempted_job_gets_notice_and_is_requeued(idle: Cluster) -> None:
    (idle.home() / "low.sh").write_text(LOW_JOB)
    output = idle.home() / "low.txt"
    low = submit(idle, "low.sh")
    assert until(output.exists, True)
    high = submit(idle, "--qos=high --nodelist=jw2 --exclusive --wrap 'sleep 1'")

    assert until(lambda: state(idle, high), "COMPLETED", 90)
    assert until(lambda: state(idle, low), "RUNNING", 60)
    assert until(lambda: output.read_text().count("start"), 2)
    assert "notice" in output.read_text()


@pytest.mark.long
def test_jobs_of_a_dead_node_are_requeued(idle: Cluster) -> None:
    job = submit(idle, "-N2 --requeue --wrap 'srun sleep 200'")
    assert until(lambda: len(idle.processes("jw3")), 1)  # of a started step
    idle.power_off("jw3")

    assert until(lambda: node_state(idle, "jw3"), "down*", 90)
    assert until(lambda: state(idle, job), "PENDING")
    assert until(lambda: idle.processes("jw2"), [])
    idle.power_on("jw3")
    assert until(lambda: state(idle, job), "RUNNING", 60)


@pytest.mark.long
def test_a_cut_link_is_detected_and_restored(idle: Cluster) -> None:
    idle.cut_link("jw3")
    assert idle.run("ping -c1 -W1 jw3").returncode != 0
    assert until(lambda: node_state(idle, "jw3"), "down*", 90)
    idle.restore_link("jw3")
    assert until(lambda: node_state(idle, "jw3"), "idle", 150)


@pytest.mark.long
def test_scrontab_starts_jobs(idle: Cluster) -> None:
    idle.run("printf '* * * * * /bin/bash -c \"echo $SLURM_JOB_ID > cron.txt\"\\n' | scrontab -")

    assert until(lambda: (idle.home() / "cron.txt").exists(), True, 100)


@pytest.mark.long
def test_two_checkouts_have_separate_clusters(idle: Cluster, tmp_path: Path) -> None:
    other = Cluster(tmp_path)
    other.up()
    try:
        assert other.run("srun -N2 hostname").returncode == 0
        assert idle.run("squeue -h").stdout == ""
        assert len(traces(other)) > 10
    finally:
        other.down()

    assert traces(other) == []
    assert idle.run("srun -N2 hostname").returncode == 0


def traces(cluster: Cluster) -> list[str]:
    """What a cluster has on this machine: namespaces, files, mounts, processes."""
    lines = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.splitlines()
    lines += [str(path) for path in STATES.iterdir()]
    lines += Path("/proc/mounts").read_text().splitlines()
    lines += subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout.split(
        "\n"
    )
    return [line for line in lines if cluster.name in line]


def submit(cluster: Cluster, arguments: str) -> str:
    done = cluster.run(f"sbatch --parsable {arguments}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(cluster: Cluster, job: str) -> str:
    known = cluster.run(f"squeue -h -j {job} -o %T").stdout.strip()
    return known or cluster.run(f"sacct -n -X -P -j {job} -o state").stdout.strip()


def last_state(cluster: Cluster) -> str:
    return cluster.run("sacct -n -X -P -o state").stdout.split()[-1]


def node_state(cluster: Cluster, node: str) -> str:
    return cluster.run(f"sinfo -h -n {node} -o %T").stdout.strip()


def test_what_a_script_builds_ends_with_its_command(tmp_path: Path) -> None:
    script, pid = tmp_path / "script", tmp_path / "pid"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! >{pid}\nwait\n")
    script.chmod(0o755)
    code = f"from cluster.cluster import _made_by; _made_by({str(script)!r})"
    begin = f"import sys; from cluster.__main__ import unwinding\nwith unwinding():\n  {code}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen([sys.executable, "-c", begin], env=environment) as command:
        try:
            assert until(lambda: pid.is_file() and pid.read_text().endswith("\n"), True)
        finally:
            command.terminate()
        assert command.wait(60) == 128 + signal.SIGTERM
    assert until(lambda: liveness.is_running(int(pid.read_text())), False)


def until(value: Callable[[], object], wanted: object, timeout_s: float = 30) -> bool:
    """Whether ``value()`` becomes ``wanted``."""
    deadline = time.monotonic() + timeout_s
    while (found := value()) != wanted:
        if time.monotonic() > deadline:
            print(f"{found!r}, not {wanted!r}")
            return False
        time.sleep(0.3)
    return True
