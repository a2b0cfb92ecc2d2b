"""Faults of nodes and of their network, on the test cluster: ``make chaos``.

A run of both nodes is measuring when the fault comes. It must end, with a record
of what happened, and leave no process on any node.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable

import msgspec
import pytest
from chaos import Outcome, table_of
from cluster.cluster import Cluster
from on_cluster import ClusterRun, leftovers, replay, submit, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

HEAD, OTHER = "jw2", "jw3"
LOST = "node_lost"

table = pytest.fixture(table_of("cluster"), scope="module")


def _of(cluster: Cluster, run: ClusterRun, fault: str, began: float) -> Outcome:
    """The outcome of a run that goes on until its job ends."""
    until(lambda: run.dir.record.is_file() and not run.record().interim, 400)
    state = run.end(300)
    found = run.record()
    until(lambda: leftovers(cluster) == [], 60)
    lost = [attempt.failure.code for attempt in found.attempts if attempt.failure is not None]
    kept = f"job {state}; ended attempts: {', '.join(lost) or 'none'}"
    code = found.failure.code if found.failure else ""
    took_s = round(time.monotonic() - began, 1)
    return Outcome(fault, "performance", found.exit_code, found.status, code, took_s, kept)


def _measuring(cluster: Cluster, seconds: float = 8, *options: str) -> ClusterRun:
    run = submit(cluster, *replay(seconds), "--nodes", "jw[2-3]", *options)
    until(run.has_measured, 120)
    return run


def _lost(run: ClusterRun) -> bool:
    if not run.dir.record.is_file():
        return False
    failure = run.record().failure
    return failure is not None and failure.code == LOST


NODE_LOSS: dict[str, tuple[Callable[[Cluster], None], Callable[[Cluster], None]]] = {
    "a node's power is cut": (lambda it: it.power_off(OTHER), lambda it: it.power_on(OTHER)),
    "a node's link is cut": (lambda it: it.cut_link(OTHER), lambda it: it.restore_link(OTHER)),
    "the run's nodes cannot reach each other, but Slurm both": (
        lambda it: it.partition(HEAD, OTHER),
        lambda it: it.end_partition(HEAD, OTHER),
    ),
}


@pytest.mark.parametrize("fault", NODE_LOSS)
def test_node_loss(idle: Cluster, table: list[Outcome], fault: str) -> None:
    lose, restore = NODE_LOSS[fault]
    run = _measuring(idle)
    began = time.monotonic()
    lose(idle)
    until(lambda: _lost(run), 60)
    reported_s = time.monotonic() - began
    restore(idle)
    found = _of(idle, run, f"{fault} (reported after {reported_s:.0f} s, then restored)", began)
    assert found.status == "completed" and LOST in found.kept
    table.append(found)


CONTINUE = ("--on-replica-loss", "continue")  # the job has Slurm's --no-kill


@pytest.mark.parametrize("fault", NODE_LOSS)
def test_continues_after_node_loss(idle: Cluster, table: list[Outcome], fault: str) -> None:
    """The node returns after the end of the job."""
    lose, restore = NODE_LOSS[fault]
    run = _measuring(idle, 40, *CONTINUE)
    began = time.monotonic()
    lose(idle)
    try:
        until(lambda: run.dir.record.is_file() and not run.record().interim, 300)
        run.end(300)
        took_s = round(time.monotonic() - began, 1)
    finally:
        restore(idle)
    found = _of(idle, run, f"{fault}, with `--on-replica-loss continue`", began)
    assert (found.status, found.exit_code) == ("completed", 1)
    ((loss,),) = (phase.losses for phase in run.record().phases)
    assert (loss.replica, loss.nodes, loss.code) == (1, (OTHER,), LOST), loss
    assert run.record().verdict == "INVALID" and len(run.record().attempts) == 1
    kept = f"{found.kept}; loss recorded after {loss.at_s:.0f} s of the test"
    table.append(msgspec.structs.replace(found, took_s=took_s, kept=kept))


def test_head_loss_without_kill(idle: Cluster, table: list[Outcome]) -> None:
    """Slurm starts the run again here too: its batch script is lost."""
    run = _measuring(idle, 8, *CONTINUE)
    began = time.monotonic()
    idle.power_off(HEAD)
    time.sleep(20)
    idle.power_on(HEAD)
    fault = "the power of the run's first node is cut for 20 s, with `--on-replica-loss continue`"
    found = _of(idle, run, fault, began)
    assert found.status == "completed"
    table.append(found)


def test_head_loss(idle: Cluster, table: list[Outcome]) -> None:
    """Nothing of the run is left that could write a record: Slurm starts it again."""
    run = _measuring(idle)
    began = time.monotonic()
    idle.power_off(HEAD)
    time.sleep(20)
    idle.power_on(HEAD)
    found = _of(idle, run, "the power of the run's first node is cut for 20 s", began)
    assert found.status == "completed"
    table.append(found)


def test_link_flaps(idle: Cluster, table: list[Outcome]) -> None:
    run = _measuring(idle, 40)
    began = time.monotonic()
    for _ in range(10):
        idle.cut_link(OTHER)
        time.sleep(1)
        idle.restore_link(OTHER)
        time.sleep(1)
    found = _of(idle, run, "a node's link is down for each second second, for 20 s", began)
    assert found.status == "completed"
    table.append(found)


def test_slow_link(idle: Cluster, table: list[Outcome]) -> None:
    run = _measuring(idle, 15)
    began = time.monotonic()
    with idle.shaped_link(OTHER, "1mbit"):
        found = _of(idle, run, "a node's link has 1 Mbit/s", began)
    assert found.status == "completed"
    table.append(found)


@pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables to drop packets")
def test_lossy_link(idle: Cluster, table: list[Outcome]) -> None:
    run = _measuring(idle, 15)
    began = time.monotonic()
    drop = "iptables -A INPUT -i eth0 -m statistic --mode random --probability 0.05 -j DROP"
    netns = ["ip", "netns", "exec", idle.netns(OTHER)]
    subprocess.run([*netns, *drop.split()], check=True)
    try:
        found = _of(idle, run, "a node's link loses 5% of its packets", began)
    finally:
        subprocess.run([*netns, "iptables", "-F", "INPUT"], check=True)
    assert found.status == "completed"
    table.append(found)


def test_slurmd_killed(idle: Cluster, table: list[Outcome]) -> None:
    run = _measuring(idle, 8)
    began = time.monotonic()
    (daemon,) = [each for each in idle.processes(OTHER, "root") if each.command == "slurmd"]
    idle.run(f"kill -KILL {daemon.pid}", node=OTHER, user="root")
    until(lambda: run.dir.record.is_file() and not run.record().interim, 120)
    idle.power_off(OTHER)
    idle.power_on(OTHER)
    found = _of(idle, run, "a node's slurmd is killed", began)
    assert found.status == "completed"
    table.append(found)


def test_run_killed_on_the_head(idle: Cluster, table: list[Outcome]) -> None:
    run = _measuring(idle, 60)
    began = time.monotonic()
    heads = [
        each
        for each in idle.processes(HEAD)
        if re.match(r"\S*python\S* -m sut\.run ", each.command)
    ]
    assert heads, idle.processes(HEAD)
    idle.run(f"kill -KILL {heads[0].pid}", node=HEAD, user="root")
    found = _of(idle, run, "the run on the first node killed", began)
    assert (found.status, found.code, found.exit_code) == ("failed", "no_record", 3)
    table.append(found)


ENDS: dict[str, tuple[Callable[[Cluster, ClusterRun], str], tuple[str, ...]]] = {
    "scancel": (lambda it, run: f"scancel {run.job_id}", ("cancelled",)),
    "preemption": (
        lambda it, run: "sbatch --qos=high --nodelist=jw2 --exclusive --wrap 'sleep 1'",
        ("",),
    ),
    "wall limit": (
        lambda it, run: f"scontrol update JobId={run.job_id} TimeLimit=1",
        ("truncated",),
    ),
}


@pytest.mark.parametrize("fault", ENDS)
def test_job_ended_at_a_random_moment(idle: Cluster, table: list[Outcome], fault: str) -> None:
    """From the start of the job on: while engines start, load, warm up or measure."""
    command, codes = ENDS[fault]
    seed = time.time_ns()
    print(f"seed {seed}")
    after_s = random.Random(seed).uniform(0, 10)
    low = ["--set", "site.slurm.qos=low"] if fault == "preemption" else []
    changes = ["--set", "site.slurm.signal_delay_s=30", "--set", "site.slurm.load_min=1"]
    seconds = 20 if fault == "preemption" else 100
    run = submit(idle, *replay(seconds), "--nodes", "jw2", *changes, *low)
    until(lambda: run.state() == "RUNNING", 60)
    time.sleep(after_s)
    began = time.monotonic()
    done = idle.run(command(idle, run), user="root" if fault == "wall limit" else "bench")
    assert done.returncode == 0, done.stderr
    found = _of(idle, run, f"{fault}, {after_s:.1f} s after the job's start", began)
    assert found.code in codes
    table.append(found)


def test_engine_killed_on_another_node(idle: Cluster, table: list[Outcome]) -> None:
    run = _measuring(idle)
    began = time.monotonic()
    (engine,) = [each for each in idle.processes(OTHER) if "replay_engine" in each.command]
    idle.run(f"kill -KILL {engine.pid}", node=OTHER, user="root")
    found = _of(idle, run, "engine on another node killed", began)
    assert (found.status, found.code, found.exit_code) == ("failed", "engine_died", 3)
    table.append(found)


def test_engine_stopped_on_another_node(idle: Cluster, table: list[Outcome]) -> None:
    run = _measuring(idle, 60)
    began = time.monotonic()
    (engine,) = [each for each in idle.processes(OTHER) if "replay_engine" in each.command]
    idle.run(f"kill -STOP {engine.pid}", node=OTHER, user="root")
    found = _of(idle, run, "engine on another node stopped", began)
    assert (found.status, found.exit_code) == ("failed", 3)
    assert found.code in ("stall", "connection_lost")  # the earlier of stall_s and 10 s
    table.append(found)


def test_disk_full_on_another_node_is_no_lost_node(idle: Cluster, table: list[Outcome]) -> None:
    """A failure that would come again: Slurm does not start the run again."""
    own = ("/tmp", "/var/tmp", "/dev/shm")
    for folder in own:
        full = f"mount -t tmpfs -o size=4k tmpfs {folder} && head -c 4k /dev/zero >{folder}/filler"
        assert idle.run(full, node=OTHER, user="root").returncode == 0
    try:
        run = submit(idle, *replay(8), "--nodes", "jw[2-3]")
        found = _of(idle, run, "another node's own disk is full", time.monotonic())
    finally:
        for folder in own:
            idle.run(f"umount --lazy {folder}", node=OTHER, user="root")
    assert found.code != LOST and len(run.record().attempts) == 1
    table.append(found)
