"""sut.init: a site file from what Slurm and this machine report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cluster.cluster import Cluster

from sut import init, validate
from sut.cluster import partitions, slurm
from sut.cluster.partitions import Machine, Partition
from sut.launch import survey
from sut.plan import config
from sut.plan.site import Device

# Slurm's commands are faked at the process boundary; everything above is real.
SCONTROL = """\
case "$*" in
*config*) echo "ClusterName             = delta" ;;
*partition*) cat <<'end'
PartitionName=batch Default=YES MaxTime=1-00:00:00 Nodes=cpu[01-02] State=UP
PartitionName=ml Default=NO MaxTime=04:30:00 Nodes=gpu2,gpu10,gpu1,old1 State=UP
PartitionName=debug Default=NO MaxTime=00:30:00 Nodes=gpu1 State=UP
PartitionName=empty Default=NO MaxTime=UNLIMITED Nodes=(null) State=UP
end
;;
*node*) cat <<'end'
NodeName=cpu01 CPUTot=64 RealMemory=257000 Gres=(null) State=IDLE
NodeName=cpu02 CPUTot=64 RealMemory=257000 Gres=(null) State=IDLE
NodeName=gpu1 AvailableFeatures=ib,rack1 RealMemory=128000 Gres=gpu:a100:4(S:0-1) State=IDLE
NodeName=gpu2 AvailableFeatures=ib RealMemory=128000 Gres=gpu:a100:4(S:0-1),tmpdisk:100 State=MIXED
NodeName=gpu10 AvailableFeatures=rack1,ib RealMemory=128000 Gres=gpu:a100:4(S:0-1) State=DOWN
NodeName=old1 CPUTot=16 RealMemory=64000 Gres=gpu:v100:2 State=IDLE
end
;;
esac
"""


@pytest.fixture
def on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"sbatch": "exit 1", "scontrol": SCONTROL, "sacctmgr": 'printf "ml\\nother\\nml\\n"'}
    for name, answer in answers.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}", prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("on_a_cluster")
def test_writes_what_slurm_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "configs/sites").mkdir(parents=True)
    assert init.main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("wrote configs/sites/delta.yaml\n")
    assert "3 nodes of partition ml of delta, 4 gpu:a100 each" in printed
    assert printed.endswith("then: python -m sut.doctor --site delta\n")
    site = config.load_site("delta")
    assert [node.name for node in site.nodes] == ["gpu1", "gpu2", "gpu10"]  # Slurm's order
    assert {node.gpus for node in site.nodes} == {4} and site.device is Device.CUDA
    assert site.slurm is not None
    assert (site.slurm.cluster, site.slurm.partition) == ("delta", "ml")
    assert (site.slurm.gres, site.slurm.max_time_min) == ("gpu:a100", 270)
    text = (tmp_path / "configs/sites/delta.yaml").read_text()
    assert '  constraint: "" # features; these nodes have ib\n' in text
    assert "old1 (2 v100)" in text and "yours: ml, other" in text and "also: batch, debug" in text


@pytest.mark.usefixtures("on_a_cluster")
def test_takes_another_partition_and_device(tmp_path: Path) -> None:
    assert init.main(["mine", "--partition", "batch"]) == 0
    site = config.load_site(str(tmp_path / "mine.yaml"))
    assert site.name == "mine" and site.device is Device.CPU and site.slurm is not None
    assert [(node.name, node.gpus) for node in site.nodes] == [("cpu01", 0), ("cpu02", 0)]
    assert site.slurm.gres == "gpu" and site.slurm.max_time_min == 24 * 60  # the default
    assert init.main(["mine", "--device", "cpu", "--force"]) == 0
    site = config.load_site(str(tmp_path / "mine.yaml"))
    assert {node.gpus for node in site.nodes} == {0} and site.device is Device.CPU


@pytest.mark.usefixtures("on_a_cluster")
def test_a_shipped_sites_name_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init.main(["local", "--local"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is a site local: ")
    assert (
        "hint: use it: --site local; choose another name: python -m sut.init my-local; or" in error
    )
    assert init.main(["local", "--local", "--force"]) == 0
    monkeypatch.setattr(slurm, "cluster_name", lambda: "devcluster")
    assert init.main([]) == 0
    assert config.load_site(str(tmp_path / "my-devcluster.yaml")).name == "my-devcluster"


@pytest.mark.usefixtures("on_a_cluster")
def test_refuses_an_unknown_partition(capsys: pytest.CaptureFixture[str]) -> None:
    assert init.main(["--partition", "gpu"]) == 2
    assert (
        "no such partition with nodes\nhint: choose from: batch, ml, debug"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("on_a_cluster")
def test_uses_an_image_and_models_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/mlperf-sut-cuda.sif").touch()
    (tmp_path / "models/A: b #c").mkdir(parents=True)
    (tmp_path / "models/A: b #c/config.json").touch()
    assert init.main(["mine"]) == 0
    site = config.load_site(str(tmp_path / "mine.yaml"))
    assert site.container is not None
    assert site.container.image == str(tmp_path / "images/mlperf-sut-cuda.sif")
    assert site.models == {"A: b #c": str(tmp_path / "models/A: b #c")}


@pytest.mark.usefixtures("on_a_cluster")
def test_names_singularity_where_there_is_no_apptainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin/singularity").write_text("#!/bin/sh\n")
    (tmp_path / "bin/singularity").chmod(0o755)
    (tmp_path / "bin/cat").symlink_to(shutil.which("cat") or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for has_apptainer in (False, True):
        if has_apptainer:
            (tmp_path / "bin/singularity").rename(tmp_path / "bin/apptainer")
        assert init.main(["mine", "--force"]) == 0
        container = config.load_site(str(tmp_path / "mine.yaml")).container
        assert container is not None
        assert container.command == ("apptainer" if has_apptainer else "singularity")


@pytest.mark.usefixtures("on_a_cluster")
def test_without_an_answer_from_slurm_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin/scontrol").write_text("#!/bin/sh\nexit 1\n")
    assert init.main([]) == 2
    assert "Slurm lists no nodes" in capsys.readouterr().err
    assert init.main(["here", "--local"]) == 0
    assert config.load_site(str(tmp_path / "here.yaml")).slurm is None


def test_writes_a_site_of_this_machine_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["mine", "--local"]) == 0
    before = (tmp_path / "mine.yaml").read_text()
    assert init.main(["mine", "--local", "--device", "cuda"]) == 2
    assert (
        "error: mine.yaml exists\nhint: use it: --site mine.yaml; choose another name"
        in capsys.readouterr().err
    )
    assert (tmp_path / "mine.yaml").read_text() == before
    assert init.main(["mine", "--local", "--device", "cuda", "--force"]) == 0
    assert capsys.readouterr().out.startswith("replaced mine.yaml\n")
    capsys.readouterr()
    assert init.main(["my site", "--local"]) == 2
    assert capsys.readouterr().err.endswith(": python -m sut.init my-site\n")
    assert init.main(["../x"]) == 2 and init.main(["--local", "--partition", "x"]) == 2


def test_names_the_site_that_this_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/sites").mkdir(parents=True)
    (tmp_path / "configs/sites/broken.yaml").write_text("name: [")
    monkeypatch.setattr("platform.node", lambda: "here")
    assert init.main(["mine", "--local"]) == 0
    capsys.readouterr()
    assert init.main(["--local"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: configs/sites/mine.yaml is a site of this machine\n")
    assert "hint: use it: --site mine; or write another: python -m sut.init " in error
    assert init.main(["other", "--local"]) == 0
    assert "note: configs/sites/mine.yaml is a site of the same machine" in capsys.readouterr().out
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert init.main(["--local"]) == 0


@pytest.mark.usefixtures("on_a_cluster")
def test_names_the_site_that_a_partition_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init.main(["mine"]) == 0
    assert init.main([]) == 2
    assert "error: mine.yaml is a site of partition ml\n" in capsys.readouterr().err
    assert init.main(["--partition", "batch"]) == 0


def test_prints_the_file_without_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["mine", "--local", "--print"]) == 0
    text = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.yaml").write_text(text)
    assert validate.main(["mine.yaml"]) == 0


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:a30:1(S:0-1)", (("a30", 1),)),
        ("gpu:2", (("", 2),)),
        ("tmp:5,gpu:h100_nvl:8(S:0),gpu:a30:1", (("h100_nvl", 8), ("a30", 1))),
        ("mygpu:3", ()),
        ("", ()),
    ],
)
def test_reads_generic_resources(gres: str, gpus: tuple[tuple[str, int], ...]) -> None:
    assert partitions.gpus_of(gres) == gpus


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [
        ("1-02:00:00", 26 * 60),
        ("1-2", 26 * 60),
        ("4:30:00", 270),
        ("30:00", 30),
        ("30", 30),
        ("infinite", None),
        ("x-1:00", None),
        ("", None),
    ],
)
def test_reads_time_limits(limit: str, minutes: int | None) -> None:
    assert slurm.minutes(limit) == minutes


def test_a_site_of_the_cluster_passes_its_checks(idle: Cluster) -> None:
    where = "cd && rm -rf new && mkdir new && cd new"
    done = idle.run(f"{where} && python -m sut.init mine --device cpu && cat mine.yaml")
    assert done.returncode == 0, done.stderr
    for words in (
        "2 nodes of partition gpu of devcluster",
        "{name: jw2}",
        "{name: jw3}",
        "interface: eth0",
        "yours: users",
        "image: /opt/images/mlperf-sut-cpu.sif",
    ):
        assert words in done.stdout
    done = idle.run("cd new && python -m sut.doctor --site mine.yaml", timeout_s=200)
    assert done.returncode == 0, done.stdout + done.stderr
    done = idle.run("cd new && python -m sut.init gpus --print")
    assert "gres: gpu:a30" in done.stdout and "{name: jw2, gpus: 1" in done.stdout


def test_chooses_the_partition_by_gpus_then_by_default() -> None:
    gres = {"a": "gpu:a30:1", "b": "", "c": "gpu:h100:8", "d": ""}
    machines = {name: Machine(name=name, gres=each) for name, each in gres.items()}

    def partition(name: str, *, default: bool = False) -> Partition:
        return Partition(name=name, default=default, nodes=tuple(name))

    def chosen(*among: Partition) -> str:
        return survey.alike(among, machines).partition.name

    assert chosen(partition("b", default=True), partition("a"), partition("c")) == "c"
    assert chosen(partition("a", default=True), partition("c")) == "a"
    assert chosen(partition("b"), partition("d", default=True)) == "d"
    assert chosen(partition("b", default=True), Partition(name="none")) == "b"
    mixed = survey.alike([partition("abd")], machines)
    assert mixed.names == ("a",) and mixed.others == ("b (no GPU)", "d (no GPU)")
