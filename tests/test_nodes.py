"""One run over several nodes, which join, run and end together."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest
from cli import ROOT, until
from jobs import LONG, Job, as_root, cable, plan_for, write_plan

from sut.plan.plan import OnReplicaLoss, Part, Replica
from sut.results import diagnosis
from sut.serving import channel
from sut.serving.channel import LostError
from sut.serving.messages import Hello
from sut.serving.process import Address

# The length of an answer in a handshake. A byte now and then completes it in 200 steps.
HEADER = (200).to_bytes(4, "big")


@pytest.mark.parametrize("num_nodes", [2, 3])
def test_one_loadgen_drives_the_replicas_of_every_node(tmp_path: Path, num_nodes: int) -> None:
    run_dir = write_plan(plan_for(num_nodes, interface="lo"), tmp_path / "run")
    with Job(run_dir, num_nodes) as job:
        assert set(job.wait().values()) == {0}, job.output(0)
    (phase,) = job.record.phases
    assert job.record.verdict == "VALID"
    assert [replica.node for replica in phase.replicas] == [f"n{i}" for i in range(num_nodes)]
    assert all(replica.samples > 0 for replica in phase.replicas)
    assert phase.dispatcher is not None
    assert sum(replica.samples for replica in phase.replicas) == phase.dispatcher.completed
    assert job.processes() == []


def test_a_node_without_a_replica_invalidates_the_run(tmp_path: Path) -> None:
    plan = plan_for(2, replicas=(Replica(index=0, parts=(Part(node=1),)),))
    with Job(write_plan(plan, tmp_path / "run"), 2) as job:
        assert job.wait() == {0: 1, 1: 0}, job.output(0)
    (phase,) = job.record.phases
    assert phase.replicas[0].node == "n1" and job.record.verdict == "INVALID"
    (reason,) = phase.verdict.reasons
    assert reason.code == "idle_nodes" and "node n0" in reason.text


def test_a_killed_node_ends_the_run(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(3, *LONG), tmp_path / "run")
    with Job(run_dir, 3) as job:
        job.until_measuring()
        job.signal(1, signal.SIGKILL)
        codes = job.wait(15)
    assert codes == {0: 3, 1: -signal.SIGKILL, 2: 0}
    failure = job.record.failure
    assert failure is not None and (failure.code, failure.node) == ("node_lost", "n1")
    assert job.record.status == "failed" and "lost node n1: " in failure.message
    until(lambda: job.processes() == [], 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_continue_without_a_lost_node(tmp_path: Path, number: signal.Signals) -> None:
    """A frozen node is lost after 10 s without an answer, and its engine still works."""
    min_duration = "scenarios.server.min_duration_ms=15000"
    plan = plan_for(3, min_duration, on_replica_loss=OnReplicaLoss.CONTINUE)
    with Job(write_plan(plan, tmp_path / "run"), 3) as job:
        job.until_measuring()
        job.signal(1, number)
        assert job.nodes[0].wait(90) == 1, job.output(0)
        assert job.nodes[2].wait(25) == 0
        job.signal(1, signal.SIGCONT)
    (phase,) = job.record.phases
    assert job.record.status == "completed" and job.record.verdict == "INVALID"
    (loss,) = phase.losses
    assert (loss.replica, loss.nodes, loss.code) == (1, ("n1",), "node_lost"), loss
    assert "lost node n1: " in loss.message
    stats = phase.dispatcher
    assert stats is not None and stats.issued == stats.completed and stats.failed == 0
    until(lambda: job.processes() == [], 40)


def test_an_engine_on_another_node_returns(tmp_path: Path) -> None:
    min_duration = "scenarios.server.min_duration_ms=15000"
    plan = plan_for(2, min_duration, on_replica_loss=OnReplicaLoss.RESTART)
    with Job(write_plan(plan, tmp_path / "run"), 2) as job:
        job.until_measuring()
        first = job.engine_of(1)
        os.kill(first, signal.SIGKILL)
        until(lambda: "Replica 1 returned" in job.output(0), 60)
        assert job.engine_of(1) != first
        assert set(job.wait(90).values()) == {0, 1}, job.output(0)
    (phase,) = job.record.phases
    (loss,) = phase.losses
    assert (loss.replica, loss.nodes, loss.code, loss.starts) == (1, ("n1",), "engine_died", 1)
    assert loss.returned_s is not None and job.record.verdict == "INVALID"
    assert phase.replicas[1].samples > 0
    assert job.processes() == []


def test_a_replica_of_a_lost_node_does_not_return(tmp_path: Path) -> None:
    min_duration = "scenarios.server.min_duration_ms=15000"
    plan = plan_for(2, min_duration, on_replica_loss=OnReplicaLoss.RESTART)
    with Job(write_plan(plan, tmp_path / "run"), 2) as job:
        job.until_measuring()
        job.signal(1, signal.SIGKILL)
        assert job.nodes[0].wait(90) == 1, job.output(0)
    (phase,) = job.record.phases
    (loss,) = phase.losses
    assert (loss.code, loss.starts, loss.returned_s) == ("node_lost", 0, None)
    assert "lost node n1: " in loss.start_failure


def test_the_loss_of_all_replicas_with_their_node_ends_the_run(tmp_path: Path) -> None:
    replicas = (Replica(index=0, parts=(Part(node=1),)),)
    plan = plan_for(2, *LONG, replicas=replicas, on_replica_loss=OnReplicaLoss.CONTINUE)
    with Job(write_plan(plan, tmp_path / "run"), 2) as job:
        job.until_measuring()
        job.signal(1, signal.SIGKILL)
        assert job.nodes[0].wait(25) == 3
    failure = job.record.failure
    assert failure is not None and (failure.code, failure.node) == ("node_lost", "n1")


def test_a_failure_after_a_lost_node_has_its_own_cause(tmp_path: Path) -> None:
    plan = plan_for(3, *LONG, on_replica_loss=OnReplicaLoss.CONTINUE)
    with Job(write_plan(plan, tmp_path / "run"), 3) as job:
        job.until_measuring()
        job.signal(1, signal.SIGKILL)
        until(lambda: "The run continues without it." in job.output(0))
        for replica in (0, 2):
            os.kill(job.engine_of(replica), signal.SIGKILL)
        assert job.nodes[0].wait(25) == 3
    failure = job.record.failure
    assert failure is not None and failure.code == "engine_died", failure


def test_a_cancelled_node_ends_a_run_that_continues_after_losses(tmp_path: Path) -> None:
    plan = plan_for(2, *LONG, on_replica_loss=OnReplicaLoss.CONTINUE)
    with Job(write_plan(plan, tmp_path / "run"), 2) as job:
        job.until_measuring()
        job.signal(1, signal.SIGTERM)
        assert job.nodes[0].wait(25) == 3
    failure = job.record.failure
    assert failure is not None and failure.code == "cancelled"


def test_a_frozen_node_ends_the_run(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *LONG), tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring()
        job.signal(1, signal.SIGSTOP)
        assert job.nodes[0].wait(25) == 3
        failure = job.record.failure
        assert failure is not None and (failure.code, failure.node) == ("node_lost", "n1")
        assert "no answer for 10 s" in failure.message
        job.signal(1, signal.SIGCONT)
        assert job.nodes[1].wait(25) == 3
        assert "lost head n0: " in job.output(1)
    assert job.processes() == []


def test_a_missing_node_ends_the_run_at_the_deadline(tmp_path: Path) -> None:
    plan = plan_for(3)
    timeouts = msgspec.structs.replace(plan.timeouts, join_s=2)
    run_dir = write_plan(msgspec.structs.replace(plan, timeouts=timeouts), tmp_path / "run")
    run_dir.job.mkdir()
    error = "slurmstepd: error: execve(): /no/python: No such file or directory"
    for index, text in enumerate(["", "FATAL:   image format not recognized", error]):
        (run_dir.job / f"77_{index}_log.out").write_text(f"{text}\n")
    with Job(run_dir, 3, absent=[2]) as job:
        assert job.wait(20)[0] == 3
    failure = job.record.failure
    assert failure is not None and (failure.code, failure.node) == ("node_lost", "n2")
    known = diagnosis.known_failures()["program_missing"]
    assert failure.first_line == f"node n2 did not join within 2 s: {known.cause}"
    assert f"| {error}\nhint: {known.remedy}" in failure.message
    assert any("waiting for node n2" in line.step for line in job.lines())
    assert job.processes() == []


def test_other_nodes_stop_when_the_head_is_killed(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(3, *LONG), tmp_path / "run")
    with Job(run_dir, 3) as job:
        job.until_measuring()
        job.signal(0, signal.SIGKILL)
        assert job.wait(20) == {0: -signal.SIGKILL, 1: 3, 2: 3}
        until(lambda: job.processes() == [])


def test_a_node_without_a_head_stops_at_the_deadline(tmp_path: Path) -> None:
    plan = plan_for(2)
    timeouts = msgspec.structs.replace(plan.timeouts, join_s=1)
    run_dir = write_plan(msgspec.structs.replace(plan, timeouts=timeouts), tmp_path / "run")
    with Job(run_dir, 2, absent=[0]) as job:
        assert job.wait(20) == {1: 3}
    assert "head n0 not reached within 1 s" in job.output(1)


def test_an_engine_death_on_another_node_ends_the_run(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *LONG), tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring()
        os.kill(job.engine_of(1), signal.SIGKILL)
        assert job.wait(15) == {0: 3, 1: 0}
    failure = job.record.failure
    assert failure is not None and failure.code == "engine_died"
    assert (failure.replica, failure.node) == (1, "n1")
    assert "killed by signal 9" in failure.message and "replica-1.log" in failure.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_node_cancels_the_run(tmp_path: Path, number: signal.Signals) -> None:
    run_dir = write_plan(plan_for(2, *LONG), tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring()
        for pid in (job.engine_of(1), job.engine_of(0)):
            os.kill(pid, number)
        for index in (1, 0):
            job.signal(index, number)
        assert job.wait(15) == {0: 3, 1: 0}
    failure = job.record.failure
    assert failure is not None and failure.code == "cancelled", failure
    assert job.processes() == []


def test_a_signal_to_one_node_cancels_the_run(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *LONG), tmp_path / "run")
    with Job(run_dir, 2) as job:
        job.until_measuring()
        job.signal(1, signal.SIGTERM)
        assert job.wait(15) == {0: 3, 1: 0}
    failure = job.record.failure
    assert failure is not None and (failure.code, failure.node) == ("cancelled", "n1")


def test_ignores_a_stale_rendezvous(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    stale = run_dir.rendezvous("77-0")
    stale.parent.mkdir()
    stale.write_text('{"address": {"host": "127.0.0.1", "port": 9}, "secret": "old"}')
    with Job(run_dir, 2, absent=[0]) as late, Job(run_dir, 2, absent=[1]) as head:
        assert head.wait() == {0: 0} and late.wait() == {1: 0}
    assert not stale.exists()


def test_only_its_owner_can_read_the_secret(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]):
        path = run_dir.rendezvous("77-0")
        until(path.is_file)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rejects_connections_without_the_secret(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as head:
        path = run_dir.rendezvous("77-0")
        until(path.is_file)
        address = json.loads(path.read_text())["address"]
        port = (address["host"], address["port"])
        silent, rude = socket.create_connection(port), socket.create_connection(port)
        rude.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(LostError):
            channel.connect(Address(*port), b"wrong")
        with silent, rude, Job(run_dir, 2, absent=[0]) as late:
            assert head.wait() == {0: 0} and late.wait() == {1: 0}


@pytest.mark.parametrize("number", [-1, 0, 2])
def test_refuses_a_node_that_the_run_does_not_have(tmp_path: Path, number: int) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as head:
        path = run_dir.rendezvous("77-0")
        until(path.is_file)
        found = json.loads(path.read_text())
        one = channel.connect(Address(**found["address"]), found["secret"].encode())
        one.send(Hello(node=number, host="127.0.0.1"))
        assert head.wait()[0] == 3
        one.close()
    failure = head.record.failure
    assert failure is not None and failure.code == "node_lost"
    assert f"a process joined as node {number} of 2" in failure.message


def test_a_slow_stranger_delays_no_node(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as head:
        path = run_dir.rendezvous("77-0")
        until(path.is_file)
        address = json.loads(path.read_text())["address"]
        # More than are allowed at a time. Each has sent the beginning of an answer, and a byte now
        # and then, which ends no silence limit.
        strangers = [socket.create_connection(tuple(address.values())) for _ in range(100)]
        for stranger in strangers:
            stranger.sendall(HEADER)
        joined = threading.Event()

        def drip() -> None:
            while not joined.wait(0.5):
                for stranger in strangers:
                    with contextlib.suppress(OSError):
                        stranger.sendall(b"\0")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with Job(run_dir, 2, absent=[0]) as late:
                assert head.wait() == {0: 0} and late.wait() == {1: 0}, head.output(0)
        finally:
            joined.set()
            dripping.join()
            for stranger in strangers:
                stranger.close()


def test_a_handshake_has_a_total_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stranger = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    stranger.sendall(HEADER)
    ended = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(0.2):
                stranger.sendall(b"\0")

    dripping = threading.Thread(target=drip)
    dripping.start()
    with pytest.raises(LostError) as lost:
        channel.Channel(accepted).authenticate(b"secret", asked_first=False)
    assert "digest" not in str(lost.value)  # the answer was not complete
    ended.set()
    dripping.join()
    stranger.close()


def test_no_key_is_sent_over_the_network(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as head:
        path = run_dir.rendezvous("77-0")
        until(path.is_file)
        found = json.loads(path.read_text())
        sent: list[bytes] = []
        found["address"]["port"] = tapped(found["address"]["port"], sent)
        path.write_text(json.dumps(found))
        with Job(run_dir, 2, absent=[0]) as other:
            assert head.wait() == {0: 0} and other.wait() == {1: 0}, head.output(0)
    wire = b"".join(sent)
    assert b"get_state" in wire  # the tap works
    keys = [each for of_replica in found["keys"] for each in of_replica]
    assert keys
    for each in keys:
        assert each["secret"].encode() not in wire
    assert found["secret"].encode() not in wire


def tapped(port: int, sent: list[bytes]) -> int:
    """The port of a proxy for one connection to ``port`` that also keeps what passes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                sent.append(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with listener:
            near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=forward, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


@as_root
def test_a_cut_link_ends_the_run_on_both_nodes(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, *LONG, interface="wire"), tmp_path / "run")
    with cable() as ends, Job(run_dir, 2, within=ends) as job:
        job.until_measuring()
        # Neither machine is notified: packets stop arriving.
        subprocess.run([*ends[1], "ip", "link", "set", "wire", "down"], check=True)
        assert job.wait(30) == {0: 3, 1: 3}
        failure = job.record.failure
        assert failure is not None and (failure.code, failure.node) == ("node_lost", "n1")
        until(lambda: job.processes() == [])


def test_refuses_a_job_with_other_nodes(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 1) as job:
        assert job.wait() == {0: 2}
    assert "is for 2 nodes (any), but job 77 has 1 (n0)" in job.output(0)
    assert not run_dir.record.exists()


def copies(folder: Path) -> dict[int, list[str]]:
    """A copy of the package for each of two nodes, and the command with which a node uses it."""
    for index in range(2):
        shutil.copytree(ROOT / "sut", folder / f"checkout-{index}" / "sut")
    return {index: ["env", "-C", str(folder / f"checkout-{index}")] for index in range(2)}


def test_an_engine_that_cannot_start_names_its_replica(tmp_path: Path) -> None:
    within = copies(tmp_path)
    (tmp_path / "checkout-1" / "sut" / "replay_engine").chmod(0o644)
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, within=within) as job:
        assert job.wait()[0] == 3
    failure = job.record.failure
    assert failure is not None and failure.code == "engine_missing", failure
    assert (failure.replica, failure.node) == (1, "n1")


def test_nodes_with_other_engines_are_refused(tmp_path: Path) -> None:
    within = copies(tmp_path)
    (tmp_path / "checkout-1" / "sut" / "replay_engine").unlink()
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, within=within) as job:
        assert job.wait()[0] == 3
    failure = job.record.failure
    assert failure is not None and failure.code == "preflight" and failure.node == "n1", failure
    assert "same_packages: source_sha256" in failure.message
