"""What is checked before a run is submitted. Slurm's commands are faked at the process boundary."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cli import ROOT, environment, set_arguments, submit
from plans import plan_of
from test_model import safetensors

from sut.cluster import container
from sut.cluster.sbatch import Submission
from sut.launch import checks, executor, newrun, path_checks
from sut.plan import config, resolve
from sut.plan.plan import Plan
from sut.plan.site import Container, Device

PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxNodes=UNLIMITED \
MaxTime=1-00:00:00 Nodes=jw[2-3] State=UP TotalNodes=2
PartitionName=debug AllowAccounts=staff AllowQos=fast Default=NO MaxNodes=1 MaxTime=00:10:00 \
Nodes=jw2 State=UP TotalNodes=1
PartitionName=closed DenyAccounts=physics Default=NO MaxTime=UNLIMITED Nodes=jw[2-3] State=UP
PartitionName=old AllowAccounts=ALL AllowQos=ALL Default=NO MaxTime=UNLIMITED Nodes=jw[2-3] \
State=INACTIVE"""
NODES = """\
NodeName=jw2 Arch=x86_64 CPUTot=2 AvailableFeatures=ib,a30 ActiveFeatures=a30 Gres=gpu:a30:1(S:0) \
RealMemory=9000 State=IDLE OS=Linux 6.1 #1 SMP
NodeName=jw3 Arch=x86_64 CPUTot=2 AvailableFeatures=(null) Gres=gpu:a30:1(S:0) RealMemory=9000 \
State=IDLE+DRAIN OS=Linux"""
RESERVATIONS = """\
ReservationName=mlperf StartTime=2026-11-01T00:00:00 Nodes=jw[2-3] NodeCnt=2 State=ACTIVE
ReservationName=small StartTime=2026-11-01T00:00:00 Nodes=jw2 NodeCnt=1 State=ACTIVE
"""
CONFIG = "AccountingStorageEnforce = associations,limits,qos"
ASSOCIATIONS = "ml|normal,fast\nphysics|normal"
QOS = "normal|\nfast|00:05:00"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Slurm's commands; a file next to one, NAME.KIND, is what it prints."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, kinds in {
        "sbatch": {},
        "scontrol": {"partition": PARTITIONS, "node": NODES, "config": CONFIG},
        "sacctmgr": {"associations": ASSOCIATIONS, "qos": QOS},
    }.items():
        loop = 'for word; do [ -f "$0.$word" ] && exec cat "$0.$word"; done; exit 1'
        (folder / name).write_text(f"#!/bin/sh\n{loop}\n")
        (folder / name).chmod(0o755)
        for kind, printed in kinds.items():
            (folder / f"{name}.{kind}").write_text(f"{printed}\n")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(path_checks, "OWN_FOLDERS", ())  # tests work in /tmp
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "x.sif"
    file.write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(100))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete model folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(100))
    return folder


def on_cluster(image: Path, *sets: str, nodes: str = "all", benchmark: str = "replay") -> Plan:
    given = (f"site.container.image={image}", f"site.cache={image.parent / 'cache'}", *sets)
    return plan_of(benchmark, site="devcluster", nodes=nodes, sets=given)


def found(plan: Plan, root: Path) -> str:
    return "\n".join(map(str, checks.problems([checks.check(plan, root)])))


@pytest.mark.usefixtures("slurm")
def test_a_plan_that_fits_has_no_problem(image: Path, tmp_path: Path) -> None:
    plan = on_cluster(image, "site.slurm.account=ml", "site.slurm.qos=normal")
    made = checks.check(plan, tmp_path / "runs")
    assert [(each.name, each.ok, list(each.problems)) for each in made] == [
        (name, True, []) for name in ("image", "run root", "cache", "partition", "nodes", "account")
    ]
    texts = {each.name: each.text for each in made}
    assert texts["partition"].startswith("gpu: at most 1,440 min; the job asks for ")
    assert texts["nodes"] == "jw[2-3]; jw3 is IDLE+DRAIN: the job may wait"
    assert not (tmp_path / "runs").exists() and not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("partition=gpuu", "Slurm has no partition 'gpuu' (did you mean 'gpu'?)\nhint: choose one"),
        ("partition=gpu,nope", "Slurm has no partition 'nope'"),
        ("partition=old", "partition old is INACTIVE: it takes no jobs"),
        ("partition=debug", "allows 1 for a job\nhint: use at most 1: --nodes 1"),
        ("partition=debug", "not in partition debug: node jw3\nhint: its nodes are jw2"),
        ("account=nobody", "has no Slurm account 'nobody'\nhint: choose one of: ml, physics"),
        ("qos=slow", "has no Slurm qos 'slow'\nhint: choose one of: fast, normal"),
        ("memory_gib=10", "node jw2 has 8 GiB of memory; slurm.memory_gib is 10"),
        ("cpus_per_task=3", "node jw2 has 2 cores; slurm.cpus_per_task is 3"),
        ("constraint=ib", "node jw3 has no feature ib (slurm.constraint); it has none"),
        ("gres=gpu:a100", "node jw3 has gres gpu:a30:1(S:0); the run asks for gpu:a100:1"),
        ("time_min=200", ""),
    ],
)
def test_names_what_slurm_would_refuse(image: Path, tmp_path: Path, change: str, text: str) -> None:
    problem = found(on_cluster(image, f"site.slurm.{change}"), tmp_path)
    assert text in problem if text else problem == ""


@pytest.mark.usefixtures("slurm")
def test_names_all_that_a_node_lacks(image: Path, tmp_path: Path) -> None:
    sets = ("site.slurm.memory_gib=10", "site.slurm.cpus_per_task=3")
    text = found(on_cluster(image, *sets), tmp_path)
    assert text.count("node jw2 has") == text.count("node jw3 has") == 2


@pytest.mark.usefixtures("slurm")
def test_names_limits_of_a_partition_and_a_qos(image: Path, tmp_path: Path) -> None:
    sets = ("site.slurm.time_min=11", "site.slurm.partition=debug", "site.slurm.account=ml")
    exact = ("site.slurm.time_min=10", "site.slurm.partition=debug")
    assert found(on_cluster(image, *exact, nodes="jw2"), tmp_path) == ""
    text = found(on_cluster(image, *sets, "site.slurm.qos=fast", nodes="jw2"), tmp_path)
    assert "the wall limit of 11 minutes exceeds the 10 of partition debug" in text
    assert "partition debug does not allow account ml\nhint: choose one of: staff" in text
    assert "the wall limit of 11 minutes exceeds the 5 of qos fast" in text
    text = found(on_cluster(image, *sets, "site.slurm.qos=normal", nodes="jw2"), tmp_path)
    assert "partition debug does not allow qos normal\nhint: choose one of: fast" in text
    denied = ("site.slurm.partition=closed", "site.slurm.account=physics")
    assert "partition closed does not allow account physics" in found(
        on_cluster(image, *denied), tmp_path
    )
    text = found(on_cluster(image, "site.slurm.account=physics", "site.slurm.qos=fast"), tmp_path)
    assert "has no Slurm qos 'fast'\nhint: choose one of: normal" in text


@pytest.mark.parametrize(
    ("change", "nodes", "text"),
    [
        ("mlperf", "all", ""),
        ("small", "jw2", ""),
        ("small", "1", ""),
        ("small", "all", "not in reservation small: node jw3\nhint: its nodes are jw2"),
        ("small,mlperf", "all", ""),
        ("mlpref", "all", "no reservation 'mlpref' for you (did you mean 'mlperf'?)"),
    ],
)
def test_names_a_reservation_that_does_not_fit(
    image: Path, slurm: Path, tmp_path: Path, change: str, nodes: str, text: str
) -> None:
    plan = on_cluster(image, f"site.slurm.reservation='{change}'", nodes=nodes)
    assert "reservation" not in found(plan, tmp_path)  # Slurm does not answer
    (slurm / "scontrol.reservation").write_text(RESERVATIONS)
    problem = found(plan, tmp_path)
    assert text in problem if text else problem == ""


@pytest.mark.usefixtures("slurm")
def test_any_node_needs_only_one_that_fits(image: Path, slurm: Path, tmp_path: Path) -> None:
    assert found(on_cluster(image, "site.slurm.partition=debug", nodes="1"), tmp_path) == ""
    nodes = NODES.replace("Gres=gpu:a30:1(S:0) RealMemory=9000 State=IDLE OS", "OS")
    (slurm / "scontrol.node").write_text(nodes)
    assert found(on_cluster(image, nodes="1"), tmp_path) == ""
    assert "node jw2 has gres none" in found(on_cluster(image, nodes="jw2"), tmp_path)


def test_what_slurm_does_not_answer_is_no_error(image: Path, slurm: Path, tmp_path: Path) -> None:
    plan = on_cluster(image, "site.slurm.partition=gpuu", "site.slurm.account=nobody")
    (slurm / "sacctmgr.associations").unlink()
    assert "account" not in found(plan, tmp_path)
    (slurm / "scontrol.node").unlink()
    (slurm / "scontrol.partition").unlink()
    *_, last = checks.check(plan, tmp_path)
    assert (last.name, last.ok) == ("Slurm", None) and found(plan, tmp_path) == ""


def test_another_machine_than_a_login_node_checks_nothing(tmp_path: Path) -> None:
    (made,) = checks.check(plan_of("replay", site="devcluster"), tmp_path)
    assert made.ok is None and "not a login node of site devcluster" in made.text


def test_slurm_chooses_no_node_outside_the_site(image: Path, slurm: Path, tmp_path: Path) -> None:
    (slurm / "scontrol.partition").write_text(PARTITIONS.replace("jw[2-3]", "jw[1-4]"))
    (slurm / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 7\n")
    (slurm / "srun").write_text("#!/bin/sh\nexit 1\n")
    (slurm / "srun").chmod(0o755)

    def script(nodes: str) -> str:
        plan = on_cluster(image, nodes=nodes)
        run_dir = newrun.create(plan, tmp_path / "runs")
        assert executor.submit(plan, run_dir, Submission()).job_id == "7"
        (file,) = run_dir.job.glob("*submission.sh")
        return file.read_text()

    assert "#SBATCH --exclude=jw1,jw4\n" in script("1") and "--nodelist" not in script("1")
    assert "#SBATCH --nodelist=jw2,jw3\n" in script("2") and "--exclude" not in script("2")


@pytest.mark.usefixtures("slurm")
def test_names_an_image_that_is_missing_or_invalid(tmp_path: Path) -> None:
    image = tmp_path / "none.sif"
    text = found(on_cluster(image), tmp_path)
    assert f"cannot read the image ({image}): No such file or directory" in text
    assert f"if only compute nodes have it: --set 'site.node_local=[{tmp_path}]'" in text
    image.write_text("not an image, but longer than the header of one")
    assert f"{image} is not an Apptainer image (SIF)" in found(on_cluster(image), tmp_path)


@pytest.mark.usefixtures("slurm")
def test_paths_of_compute_nodes_are_not_checked(tmp_path: Path) -> None:
    local = tmp_path / "scratch"
    plan = on_cluster(
        local / "none.sif",
        f"site.node_local=[{local}]",
        f"site.container.binds=[{local / 'more'}]",
    )
    made = checks.check(plan, tmp_path)
    assert {each.name: each.ok for each in made}["image"] is None
    assert checks.problems([made]) == []
    other = on_cluster(local / "none.sif", f"site.node_local=[{tmp_path / 'scrat'}]")
    assert "cannot read the image" in found(other, tmp_path)


@pytest.mark.usefixtures("slurm")
def test_names_a_path_of_the_login_node_alone(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_checks, "OWN_FOLDERS", (tmp_path,))
    text = found(on_cluster(image), tmp_path / "runs")
    assert f"image {image} is on this machine's own disk" in text
    assert f"cannot use run root {tmp_path / 'runs'}: it is on this machine's own disk" in text
    monkeypatch.setattr(path_checks.socket, "gethostname", lambda: "jw2.cluster")
    assert found(on_cluster(image), tmp_path / "runs") == ""


@pytest.mark.usefixtures("slurm")
def test_names_a_bind_that_does_not_exist(image: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    text = found(on_cluster(image, f"site.container.binds=[{tmp_path}, {missing}]"), tmp_path)
    assert text.startswith(f"container.binds: {missing}: no such file or folder\nhint: ")
    assert text.count("container.binds: /") == 1


def with_model(folder: Path, *sets: str, container: bool = False) -> Plan:
    given = (f"site.models={{mine: {folder}}}", "model.name=mine", "model.embedded=false")
    if container:
        given += (f"site.container={{image: {folder.parent / 'x.sif'}}}",)
    return plan_of("smollm2-135m-news", sets=(*given, *sets))


def test_names_what_a_model_folder_misses(folder: Path, tmp_path: Path) -> None:
    plan = with_model(folder)
    assert found(plan, tmp_path) == ""
    (folder / "tokenizer.json").unlink()
    assert f"model mine: {folder / 'tokenizer.json'}: No such file or directory" in found(
        plan, tmp_path
    )
    text = found(with_model(tmp_path / "none"), tmp_path)
    assert f"model mine: {tmp_path / 'none'}: no such model folder\nhint: " in text
    assert """--set 'site.models."mine"=/path'""" in text and "compute nodes" not in text


def test_shows_whether_the_model_was_read(folder: Path, tmp_path: Path) -> None:
    def engine(plan: Plan) -> bool | None:
        return {each.name: each.ok for each in checks.check(plan, tmp_path)}["engine"]

    assert engine(plan_of("smollm2-135m-news")) is True
    assert engine(with_model(folder)) is None  # its config.json is empty
    sizes = {"num_attention_heads": 1, "num_hidden_layers": 1, "hidden_size": 1}
    (folder / "config.json").write_text(json.dumps(sizes))
    assert engine(with_model(folder)) is True


@pytest.mark.usefixtures("image")
def test_a_local_container_needs_apptainer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(with_model(folder, container=True), tmp_path).startswith("apptainer was not found")
    (tmp_path / "apptainer").touch(0o755)
    assert found(with_model(folder, container=True), tmp_path) == ""


@pytest.mark.usefixtures("image")
def test_names_linked_weights_that_are_not_bound(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apptainer").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (folder / "model.safetensors").rename(blobs / "weights")
    (folder / "model.safetensors").symlink_to(blobs / "weights")
    assert found(with_model(folder), tmp_path) == ""  # no container: the link is followed
    text = found(with_model(folder, container=True), tmp_path)
    assert f"is a link to {blobs / 'weights'}, which the container does not see" in text
    bound = f"site.container.binds=[{blobs}]"
    assert text.endswith(f"--set '{bound}'")
    assert found(with_model(folder, bound, container=True), tmp_path) == ""


def snapshot(hub: Path, folder: Path) -> Path:
    """The folder as Hugging Face's cache keeps it: links into ../../blobs."""
    model = hub / "models--org--M"
    taken = model / "snapshots" / "abc123"
    taken.mkdir(parents=True)
    (model / "blobs").mkdir()
    for file in folder.iterdir():
        shutil.copy(file, model / "blobs" / file.name)
        (taken / file.name).symlink_to(f"../../blobs/{file.name}")
    return taken


@pytest.fixture
def apptainer(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Apptainer and an image that exist."""
    (tmp_path / "apptainer").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return image


@pytest.mark.usefixtures("apptainer")
def test_a_hugging_face_snapshot_is_bound_whole(folder: Path, tmp_path: Path) -> None:
    taken = snapshot(tmp_path / "hub", folder)
    plan = with_model(taken)
    plan = msgspec.structs.replace(plan, container=Container(image=str(tmp_path / "x.sif")))
    assert found(plan, tmp_path) == ""
    assert plan.container is not None
    bound = [Path(path) for path, _ in container.binds(plan, plan.container, tmp_path / "runs")]
    for file in taken.iterdir():
        assert any(file.resolve().is_relative_to(path.resolve()) for path in bound)


@pytest.mark.usefixtures("apptainer")
def test_names_a_link_that_leads_elsewhere_in_a_container(folder: Path, tmp_path: Path) -> None:
    """A relative link is followed from where the folder is bound: not its place on the host."""
    taken = snapshot(tmp_path / "hub", folder)
    (tmp_path / "models").mkdir()
    named = tmp_path / "models" / "M"
    named.symlink_to(taken)
    plan = with_model(named)
    plan = msgspec.structs.replace(plan, container=Container(image=str(tmp_path / "x.sif")))
    text = found(plan, tmp_path)
    assert f"{named / 'config.json'} is a link to {tmp_path / 'blobs/config.json'}" in text
    assert text.endswith(f"""--set 'site.models."mine"={taken}'""")


@pytest.mark.usefixtures("apptainer")
def test_keeps_the_sites_binds_in_the_hint(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for name in ("config.json", "model.safetensors"):
        kept = tmp_path / f"of-{name}"
        kept.mkdir()
        (folder / name).rename(kept / name)
        (folder / name).symlink_to(kept / name)
    plan = with_model(folder)
    site = Container(image=str(tmp_path / "x.sif"), binds=(str(tmp_path / "other"),))
    text = found(msgspec.structs.replace(plan, container=site), tmp_path)
    folders = [tmp_path / name for name in ("other", "of-config.json", "of-model.safetensors")]
    binds = ", ".join(map(str, folders))
    assert text.endswith(f"--set 'site.container.binds=[{binds}]'")
    every = msgspec.structs.replace(site, binds=tuple(map(str, folders)))
    assert found(msgspec.structs.replace(plan, container=every), tmp_path) == ""


@pytest.mark.usefixtures("apptainer")
def test_follows_a_link_through_a_bound_folder(folder: Path, tmp_path: Path) -> None:
    """What is bound may itself lead out."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "bound").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "disk" / "weights")
    (tmp_path / "bound" / "link").symlink_to(tmp_path / "disk")
    (folder / "model.safetensors").symlink_to(tmp_path / "bound" / "link" / "weights")
    site = Container(image=str(tmp_path / "x.sif"), binds=(str(tmp_path / "bound"),))
    plan = msgspec.structs.replace(with_model(folder), container=site)
    text = found(plan, tmp_path)
    assert f"is a link to {tmp_path / 'disk/weights'}, which the container" in text


def test_names_data_that_is_missing_or_another_file(tmp_path: Path) -> None:
    data = tmp_path / "cnn_eval.json"
    sets = ("dataset.kind=cnn_eval", "dataset.name=mine", f"site.datasets={{mine: {data}}}")
    plan = plan_of("smollm2-135m-news", sets=sets)
    assert f"cannot read data set mine ({data}): No such file" in found(plan, tmp_path)
    data.write_text("[]")
    assert found(plan, tmp_path) == ""
    sha256 = hashlib.sha256(b"[]").hexdigest()
    other = plan_of("smollm2-135m-news", sets=(*sets, f"dataset.sha256={'f' * 64}"))
    text = found(other, tmp_path)
    assert f"{data} is not data set mine: its sha256 is {sha256[:12]}, not ffffffffffff" in text
    assert "docs/benchmarks.md#get-the-model-and-the-data" in text
    same = msgspec.structs.replace(other.dataset, sha256=sha256)
    assert found(msgspec.structs.replace(other, dataset=same), tmp_path) == ""


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write to, root included."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,mode=755", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_names_folders_that_are_not_writable(read_only: Path) -> None:
    text = found(plan_of("replay", sets=(f"site.cache={read_only}",)), read_only / "runs")
    why = f"cannot create a folder in {read_only}: Read-only file system\nhint: use a folder that"
    assert f"cannot use run root {read_only / 'runs'}: {why}" in text
    assert f"cannot use cache {read_only}: {why}" in text
    assert "space" not in text


def test_names_a_run_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = found(plan_of("replay"), tmp_path / "file" / "runs")
    assert (
        f"cannot use run root {tmp_path / 'file/runs'}: cannot create a folder in "
        f"{tmp_path / 'file'}: Not a directory" in text
    )


def test_names_a_folder_without_free_space(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    text = found(plan_of("replay"), folder / "runs")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert f"cannot use run root {folder / 'runs'}: 1 MiB free; 256 MiB needed" in text
    assert "hint: free some space, or use another folder: --root /path" in text


def test_leaves_nothing_in_a_folder_that_it_checks(tmp_path: Path) -> None:
    assert found(plan_of("replay", sets=(f"site.cache={tmp_path / 'cache'}",)), tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_reports_what_this_machine_lacks(tmp_path: Path) -> None:
    env = environment(CUDA_VISIBLE_DEVICES="0")
    sets = ["site.device=cuda", "site.num_replicas=2", f"site.models={{mine: {tmp_path}}}"]
    sets += ["model.name=mine", "model.embedded=false"]
    for dry in ([], ["--dry-run"]):
        run = submit(tmp_path, *dry, *set_arguments(sets), env=env)
        assert run.returncode == 2 and run.stderr.count("CUDA_VISIBLE_DEVICES lists 1") == 1
        assert f"model mine: {tmp_path / 'config.json'}: No such file" in run.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["llama3.1-8b", "llama3.1-8b-edge"])
def test_the_docs_have_the_datas_hash(name: str) -> None:
    data = config.load(name, "local")[0].dataset
    line = f"| `{data.name}` | `{name}` | `{data.sha256}` |"
    assert line in (ROOT / "docs/benchmarks.md").read_text().splitlines()


def test_the_section_of_a_hint_exists() -> None:
    file, _, anchor = resolve.GET_INPUTS.partition("#")
    text = (Path(__file__).parent.parent / file).read_text()
    assert f"### {anchor.replace('-', ' ')}" in text.lower()


@pytest.mark.parametrize("dry", [True, False])
def test_reports_every_problem_before_anything_starts(
    slurm: Path, tmp_path: Path, dry: bool
) -> None:
    changes = [f"site.container.image={tmp_path / 'none.sif'}", "site.slurm.partition=nope"]
    changes += [f"site.run_root={tmp_path / 'runs'}", f"site.cache={tmp_path / 'cache'}"]
    command = ["--config", "replay", "--site", "devcluster", *set_arguments(changes)]
    env = environment(PATH=os.environ["PATH"])
    run = submit(tmp_path, *command, *(["--dry-run"] if dry else []), env=env)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert "cannot read the image" in run.stderr and "no partition 'nope'" in run.stderr
    assert ("NOT OK  image" in run.stdout) is dry
    assert not (tmp_path / "runs").exists()
    whole = submit(tmp_path, *command, "--dry-run", "--json", env=env)
    (page,) = json.loads(whole.stdout)["runs"]
    assert {each["name"]: each["ok"] for each in page["checks"]}["partition"] is False


def test_a_local_dry_run_leaves_its_gpus_to_the_start() -> None:
    plan = plan_of("replay")
    (machine, *_) = checks.check(plan, Path("/tmp"))
    assert "GPUs" not in machine.text
    on_gpus = msgspec.structs.replace(plan, device=Device.CUDA)
    (machine, *_) = checks.check(on_gpus, Path("/tmp"))
    assert machine.name == "machine"
    assert machine.text.endswith("; its GPUs are checked when the run starts")
