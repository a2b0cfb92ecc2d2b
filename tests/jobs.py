"""Jobs of several nodes without Slurm: one process for each node, on this machine's loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from cli import FAST, environment, processes_of, until
from plans import plan_of

from sut.plan.plan import Mode, Node, Part, Plan, Replica
from sut.plan.site import Timeouts
from sut.results import record
from sut.results.progress import Line
from sut.rundir import RunDir

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
LONG = ("scenarios.server.min_duration_ms=60000",)


def plan_for(num_nodes: int, *sets: str, mode: Mode = Mode.PERFORMANCE, **changes: object) -> Plan:
    """The replay benchmark with one replica on each node. It measures for about a second."""
    fast = [f"scenarios.server.{change}" for change in FAST["server"]]
    # Limits that a busy machine meets.
    fast += ["scenarios.server.ttft_latency_ms=20000", "scenarios.server.tpot_latency_ms=2000"]
    fast += ["engine.replay.step_base_us=200", "engine.replay.step_per_sequence_us=0"]
    plan = msgspec.structs.replace(
        plan_of("replay", sets=[*fast, *sets]),
        mode=mode,
        nodes=tuple(Node() for _ in range(num_nodes)),
        replicas=tuple(Replica(index=i, parts=(Part(node=i),)) for i in range(num_nodes)),
        timeouts=Timeouts(join_s=30, ready_s=30, stall_s=20),
    )
    return msgspec.structs.replace(plan, **changes)


def write_plan(plan: Plan, folder: Path) -> RunDir:
    """A run directory like those of sut.submit."""
    run_dir = RunDir(folder)
    run_dir.root.mkdir(parents=True, exist_ok=True)
    run_dir.plan.write_bytes(msgspec.json.encode(plan))
    run_dir.user_conf.write_text(plan.user_conf())
    return run_dir


class Job:
    """One attempt of a job. The output of its nodes is in the run's files ``node-<i>.txt``."""

    def __init__(
        self,
        run_dir: RunDir,
        num_nodes: int,
        *,
        absent: Sequence[int] = (),
        attempt: int = 0,
        within: Mapping[int, Sequence[str]] | None = None,  # prefix of a node's command
        env: Mapping[int, Mapping[str, str]] | None = None,
    ) -> None:
        self.run_dir = run_dir
        names = ",".join(f"n{i}" for i in range(num_nodes))
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        for index in range(num_nodes):
            if index in absent:
                continue
            around = {
                "SUT_NODES": names,
                "SLURM_JOB_ID": "77",
                "SLURM_NODEID": str(index),
                "SLURM_RESTART_COUNT": str(attempt),
                **(env or {}).get(index, {}),
            }
            command = [sys.executable, "-m", "sut.run", str(run_dir)]
            with (run_dir.root / f"node-{index}.txt").open("ab") as output:
                self.nodes[index] = subprocess.Popen(
                    [*(within or {}).get(index, []), *command],
                    env=environment(**around),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.kill()
            node.wait()

    def wait(self, timeout_s: float = 60) -> dict[int, int]:
        """Every node's exit code."""
        deadline = time.monotonic() + timeout_s
        return {i: node.wait(deadline - time.monotonic()) for i, node in self.nodes.items()}

    def signal(self, index: int, number: signal.Signals) -> None:
        self.nodes[index].send_signal(number)

    def until_measuring(self, phase: str = "performance") -> None:
        """Wait until a phase has completed samples."""
        until(lambda: any(line.phase == phase and line.completed for line in self.lines()))

    def lines(self) -> list[Line]:
        path = self.run_dir.progress
        whole = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
        return [msgspec.json.decode(line, type=Line) for line in whole.splitlines()]

    def output(self, index: int) -> str:
        return (self.run_dir.root / f"node-{index}.txt").read_text()

    @property
    def record(self) -> record.Record:
        return record.read(self.run_dir.record)

    def engine_of(self, replica: int) -> int:
        """The process id of a replica's engine."""
        log = str(self.run_dir.replica_log(replica))
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "fd" / "1") == log:
                    return int(entry.name)
            except OSError:
                continue
        raise AssertionError(f"replica {replica} has no engine")

    def processes(self) -> list[str]:
        """The job's remaining processes on this machine."""
        return processes_of(self.run_dir.root)


@contextmanager
def cable() -> Iterator[dict[int, list[str]]]:
    """Two network namespaces, each with one end of a cable as the interface ``wire``. Yields the
    command prefix of each. The first has the address 192.0.2.1. Needs root."""
    names = [f"sut-{side}{os.getpid()}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "wire", "type", "veth", "peer", "wire", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"192.0.2.{number}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            # A machine reaches its own address through lo.
            ip("-n", name, "link", "set", "lo", "up")
        for name in names:  # the kernel detects the other end after a moment
            until(lambda name=name: "state UP" in ip("-n", name, "link", "show", "wire"))
        yield {index: ["ip", "netns", "exec", name] for index, name in enumerate(names)}
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout
