"""Runs on the test cluster, started as a user starts them."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cli import fast
from cluster.cluster import COMPUTE, Cluster

from sut.results import record
from sut.results.record import Record
from sut.rundir import RunDir

# Limits that a busy machine meets, and a load that lasts for min_duration.
PATIENT = ["ttft_latency_ms=20000", "tpot_latency_ms=2000", "target_qps=60"]


def replay(seconds: float, *, scenario: str = "server") -> list[str]:
    """Arguments of a replay run that measures for about ``seconds``."""
    sets = [*PATIENT, f"min_duration_ms={int(seconds * 1000)}", "min_query_count=470"]
    return [*fast(scenario), *(f"--set=scenarios.{scenario}.{change}" for change in sets)]


class ClusterRun:
    """A submitted run: its job, and its files on this machine."""

    def __init__(self, cluster: Cluster, job_id: str, run_dir: str) -> None:
        self._cluster = cluster
        self.job_id = job_id
        self.name = run_dir  # the path on the cluster
        home = "/home/bench"
        self.dir = RunDir(cluster.home() / Path(run_dir).relative_to(home))

    def record(self) -> Record:
        return record.read(self.dir.record)

    def state(self) -> str:
        return self._sacct("state").partition(" ")[0]

    def exit_code(self) -> str:
        return self._sacct("exitcode")

    def end(self, timeout_s: float = 120) -> str:
        """The job's last state."""
        found = ""

        def over() -> bool:
            nonlocal found
            # Accounting ends an attempt as PREEMPTED or NODE_FAIL before it shows the next one.
            active = self._cluster.run(f"squeue --noheader --job={self.job_id}").stdout.strip()
            found = self.state()
            return not active and found not in ("PENDING", "RUNNING", "REQUEUED", "")

        until(over, timeout_s)
        return found

    def has_measured(self, phase: str = "performance") -> bool:
        """Whether a phase is being measured."""
        if not self.dir.progress.is_file():
            return False
        last = self.dir.progress.read_text().splitlines()[-1:]
        return any(f'"phase":"{phase}"' in line for line in last)

    def _sacct(self, column: str) -> str:
        # sacct shows only the last attempt of a requeued job.
        command = f"sacct -n -X -P -j {self.job_id} -o {column}"
        # A job that lost a node has a line for its time before (RESIZING).
        return self._cluster.run(command).stdout.strip().rpartition("\n")[2]


def submit(cluster: Cluster, *arguments: str) -> ClusterRun:
    """``python -m sut.submit ARGUMENTS`` on the login node."""
    done = cluster.run(f"python -m sut.submit {shlex.join(arguments)}")
    assert done.returncode == 0, done.stdout + done.stderr
    words = done.stdout.split()
    return ClusterRun(cluster, words[words.index("job") + 1], words[words.index("files") + 1])


def submitted_and_awaited(
    cluster: Cluster, *arguments: str, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    command = f"python -m sut.submit --wait {shlex.join(arguments)}"
    return cluster.run(command, timeout_s=timeout_s)


class Ended(NamedTuple):
    """A finished batch job."""

    exit_code: int
    output: str


def sbatch(cluster: Cluster, words: str, timeout_s: float = 120) -> Ended:
    """``sbatch WORDS`` on the login node, awaited. sbatch's own --wait polls only every 30 s."""
    submitted = cluster.run(f"sbatch --parsable --output=%j.out {words}")
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    ended: list[str] = []

    def finished() -> bool:
        ended[:] = cluster.run(f"sacct -nXP -j {job} -o end,exitcode").stdout.strip().split("|")
        return len(ended) == 2 and ended[0] not in ("Unknown", "None")

    until(finished, timeout_s)
    code, _, number = ended[1].partition(":")
    assert number == "0", f"signal {number} ended job {job}"
    return Ended(int(code), (cluster.home() / f"{job}.out").read_text())


def latest(cluster: Cluster) -> Record:
    return record.read(cluster.home() / "runs" / "latest")


def leftovers(cluster: Cluster) -> list[str]:
    """The user's processes on the compute nodes, without Slurm's own."""
    return [
        f"{node}: {process.command}"
        for node in COMPUTE
        for process in cluster.processes(node)
        if "ps -eo" not in process.command
    ]


def until(done: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait until ``done()``; fail after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"timed out after {timeout_s:g} s"
        time.sleep(0.3)
