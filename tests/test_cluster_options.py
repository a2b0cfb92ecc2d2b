"""Jobs on the test cluster with the options that other clusters ask for, and without ours."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from cluster.cluster import COMPUTE, Cluster
from on_cluster import ClusterRun, leftovers, replay, submit, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

FEATURES = "a30,shared"
RESERVATION = "mlperf"
SITE = """\
name: other
device: cpu
nodes:
  - {name: "jw[2-3]", gpus: 1}
interface: eth0
run_root: ~/runs
cache: ~/.cache/mlperf-sut
container: {image: /opt/images/mlperf-sut-cpu.sif, command: singularity}
"""


@pytest.fixture
def other(idle: Cluster) -> Iterator[Cluster]:
    """The cluster with features and a reservation, and with `singularity` for who loads it."""
    names = ",".join(COMPUTE)
    features = f"scontrol update NodeName={names} AvailableFeatures={FEATURES}"
    as_root(idle, f"{features} ActiveFeatures={FEATURES}")
    as_root(
        idle,
        f"scontrol create reservation ReservationName={RESERVATION} Users=bench Nodes={names} "
        "StartTime=now Duration=60",
    )
    done = idle.run("mkdir -p ~/loaded && ln -sf $(type -p apptainer) ~/loaded/singularity")
    assert done.returncode == 0, done.stderr
    yield idle
    idle.run("scancel --user bench")
    # Not while a job uses it.
    deletion = f"scontrol delete ReservationName={RESERVATION}"
    until(lambda: idle.run(deletion, user="root").returncode == 0)
    as_root(idle, f"scontrol update NodeName={names} AvailableFeatures= ActiveFeatures=")


def as_root(cluster: Cluster, command: str) -> None:
    done = cluster.run(command, user="root")
    assert done.returncode == 0, done.stdout + done.stderr


def run(cluster: Cluster, slurm: str, nodes: str) -> dict[str, str]:
    """Run on these nodes; what Slurm has on record of the job, by the names of scontrol."""
    lines = "".join(f"  {line}\n" for line in slurm.splitlines())
    (cluster.home() / "other.yaml").write_text(f"{SITE}slurm:\n{lines}")
    made = submit(cluster, *replay(2), "--site", "other.yaml", "--nodes", nodes)
    assert made.end(300) == "COMPLETED", output(made)
    assert made.record().verdict == "VALID" and leftovers(cluster) == []
    assert made.record().environment.image_sha256 is not None
    shown = cluster.run(f"scontrol show job {made.job_id}").stdout
    return dict(re.findall(r"(\S+?)=(\S*)", shown)) | {"output": output(made)}


def output(made: ClusterRun) -> str:
    return "".join(file.read_text() for file in made.dir.job.glob("*.out"))


SETUP = """\
setup:
  - export PATH=$HOME/loaded:$PATH
  - echo loaded $(type -p singularity)
"""


def test_a_job_of_whole_reserved_nodes_with_features(other: Cluster) -> None:
    asked = 'memory_gib: null\ngres: ""\ngpus_per_node: a30\nexclusive: true\nload_min: 3\n'
    asked += f"constraint: a30&shared\nreservation: {RESERVATION}\n{SETUP}"
    job = run(other, asked, "jw[2-3]")
    assert job["NodeList"] == "jw[2-3]" and job["NumNodes"] == "2"
    assert job["TresPerNode"] == "gres/gpu:a30:1" and job["OverSubscribe"] == "NO"
    assert job["Features"] == "a30&shared" and job["Reservation"] == RESERVATION
    assert "loaded /home/bench/loaded/singularity" in job["output"]


def test_a_job_without_memory_and_gpus(other: Cluster) -> None:
    asked = 'sbatch: {mem: "", gres: null, exclusive: user}\nload_min: 3\n'
    asked += f"reservation: {RESERVATION}\n{SETUP}"
    job = run(other, asked, "jw[3-3]")
    assert job["NodeList"] == "jw3" and "TresPerNode" not in job
    assert job["OverSubscribe"] == "USER" and "gres/gpu" not in job["ReqTRES"]
