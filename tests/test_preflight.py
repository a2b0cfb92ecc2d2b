"""What is looked at on every node before an engine starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from jobs import Job, as_root, cable, plan_for, write_plan

from sut.cluster.allocation import Allocation
from sut.machine import gpus
from sut.plan.benchmark import Dataset, DatasetKind, EngineKind
from sut.plan.fit import utilization
from sut.plan.plan import Mode, Part, Plan, Replica
from sut.plan.site import Device
from sut.results.progress import Progress
from sut.results.record import NodePreflight, PreflightCheck, Record
from sut.serving import channel, link, node_check, preflight
from sut.serving.channel import LostError
from sut.serving.messages import REQUEST, Clock, Done, GetClock, SendBurst, TakeBurst
from sut.serving.node_check import fingerprint
from sut.serving.nodes import Nodes


def checks_of(node: NodePreflight, name: str) -> list[PreflightCheck]:
    return [check for check in node.checks if check.name == name]


def failed(record: Record) -> set[tuple[str, str]]:
    """Node and check of all that are not well."""
    return {(node.node, c.name) for node in record.preflight for c in node.checks if not c.ok}


def refused(plan: Plan, folder: Path, **around: object) -> Record:
    """The record of a run that preflight ends, on every node in order."""
    run_dir = write_plan(plan, folder)
    num_nodes = len(plan.nodes)
    with Job(run_dir, num_nodes, **around) as job:  # type: ignore[arg-type]
        codes = job.wait()
    assert codes == {0: 3} | dict.fromkeys(range(1, num_nodes), 0), job.said(0)
    assert not run_dir.logs.exists() or not list(run_dir.logs.iterdir())
    failure = job.record.failure
    assert failure is not None and failure.code == "preflight"
    for node, name in failed(job.record):
        assert f"{node}: {name}:" in failure.message
    assert "## Preflight" in run_dir.report.read_text()
    return job.record


def test_what_was_found_is_kept_though_all_is_well(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, mode=Mode.PREFLIGHT, interface="lo"), tmp_path / "run")
    with Job(run_dir, 2) as job:
        assert job.wait() == {0: 0, 1: 0}, job.said(0)
    record = job.record
    assert (record.status, record.verdict, record.exit_code) == ("completed", None, 0)
    assert record.phases == () and failed(record) == set()
    assert not run_dir.logs.exists() and not run_dir.loadgen("performance").exists()
    head, other = record.preflight
    assert [head.node, other.node] == ["n0", "n1"]
    everywhere = {"engine", "run_dir", "cache", "shm", "ports", "interface"}
    assert {check.name for check in head.checks} == everywhere
    assert {check.name for check in other.checks} == everywhere | {
        "clock",
        "latency",
        "bandwidth",
        "same_packages",
    }
    (bandwidth,) = checks_of(other, "bandwidth")
    assert bandwidth.measured is not None and bandwidth.measured > 10 and bandwidth.unit == "MB/s"
    assert [node.hostname for node in record.nodes] == [record.environment.hostname]
    assert "| `bandwidth` | - |" in run_dir.report.read_text()


def test_everything_amiss_on_any_node_is_told_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text("[]")
    plan = plan_for(2)
    plan = msgspec.structs.replace(
        plan,
        model=msgspec.structs.replace(plan.model, embedded=False, path=str(tmp_path / "nowhere")),
        engine=msgspec.structs.replace(plan.engine, kind=EngineKind.VLLM),
        dataset=Dataset(
            name="d", kind=DatasetKind.CNN_EVAL, num_samples=1, sha256="0" * 64, path=str(data)
        ),
    )
    env = {i: {"SUT_IMAGE_SHA256": str(i) * 64} for i in range(2)}
    record = refused(plan, tmp_path / "run", env=env)
    assert failed(record) == {
        ("n0", "model"),
        ("n1", "model"),
        ("n0", "data"),
        ("n1", "data"),
        ("n1", "same_image"),
    }
    assert record.failure is not None and record.failure.node is None


@as_root
def test_a_node_that_sees_other_files_is_named(tmp_path: Path) -> None:
    models = {name: small_model(tmp_path / name, name) for name in ("right", "other")}
    plan = plan_for(2)
    plan = msgspec.structs.replace(
        plan,
        model=msgspec.structs.replace(plan.model, embedded=False, path=str(models["right"])),
        engine=msgspec.structs.replace(plan.engine, kind=EngineKind.VLLM),
        dataset=plan.dataset,
    )
    mounts = f"mount --bind {models['other']} {models['right']} && mount -t tmpfs -o size=1m x "
    elsewhere = ["unshare", "--mount", "sh", "-c", mounts + '/dev/shm && exec "$@"', "sh"]
    record = refused(plan, tmp_path / "run", within={1: elsewhere})
    assert failed(record) == {("n1", "same_model"), ("n1", "shm")}
    assert record.failure is not None and record.failure.node == "n1"


def small_model(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(f'{{"words": "{content}"}}')
    header = b'{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    return folder


@as_root
def test_a_slow_network_is_refused(tmp_path: Path) -> None:
    with cable() as ends:
        limit = "tc qdisc add dev wire root tbf rate 8mbit burst 32k latency 400ms"
        if subprocess.run([*ends[0], *limit.split()], capture_output=True).returncode != 0:
            pytest.skip("this kernel can't limit a link")
        record = refused(plan_for(2, interface="wire"), tmp_path / "run", within=ends)
    assert failed(record) == {("n1", "bandwidth")}
    (bandwidth,) = checks_of(record.preflight[1], "bandwidth")
    assert bandwidth.measured is not None and bandwidth.measured < 2


def test_an_interface_that_a_node_lacks_is_told(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, interface="ib7"), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as job:
        assert job.wait() == {0: 3}
    failure = job.record.failure
    assert failure is not None and failure.code == "interface" and "It has lo" in failure.message


def test_a_node_that_is_not_done_in_time_says_what_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_model(tmp_path / "model", "x")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")  # a disk that never answers
    monkeypatch.setattr(preflight, "TIME_S", 0.5)
    run_dir = write_plan(plan_for(1), tmp_path / "run")
    with Nodes(plan_for(1), run_dir, Allocation()) as nodes:
        found = preflight.look(nodes, folder, Progress(run_dir.progress))
    (check,) = found.nodes[0].checks
    assert check.name == "time" and not check.ok and "reading the model" in check.text


class OtherNode:
    """A node's end of a channel whose clock is wrong and whose answers are late."""

    def __init__(self, ahead_s: float, late_s: float) -> None:
        self._ahead_s = ahead_s
        self._late_s = late_s
        with channel.listen("127.0.0.1") as listener:
            address = channel.Address("127.0.0.1", listener.getsockname()[1])
            connecting = threading.Thread(target=self._connect, args=[address], daemon=True)
            connecting.start()
            accepted = channel.accept(listener, b"secret", 5)
        assert accepted is not None
        self.channel = accepted

    def _connect(self, address: channel.Address) -> None:
        end = channel.connect(address, b"secret")
        while True:
            try:
                request = end.receive(REQUEST)
            except LostError:
                return
            time.sleep(self._late_s)
            match request:
                case GetClock():
                    end.send(Clock(time_ns=time.time_ns() + int(self._ahead_s * 1e9)))
                case TakeBurst():
                    for _ in range(request.num_chunks):
                        end.receive_bytes()
                    end.send(Done())
                case SendBurst():
                    for _ in range(request.num_chunks):
                        end.send_bytes(bytes(request.chunk_bytes))


def test_clocks_that_are_apart_and_a_slow_answer_are_measured() -> None:
    measured = link.measure(OtherNode(ahead_s=-5, late_s=0.03).channel)
    # The clock is read at the end of the wait, so half of it is added.
    assert -5_100 < measured.clock_ahead_ms < -4_900
    assert measured.round_trip_ms >= 30
    amiss = {check.name for check in preflight._of_link(measured) if not check.ok}
    assert {"clock", "latency"} <= amiss


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda and NVML that pretend."""
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).parent / "fake_driver.c"
    library = folder / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    shutil.copy(library, folder / "libnvidia-ml.so.1")
    return folder


def gpu_plan(num_gpus: int) -> Plan:
    parts = (Part(node=0, gpus=tuple(range(num_gpus))),)
    return plan_for(1, device=Device.CUDA, replicas=(Replica(index=0, parts=parts),))


@pytest.mark.parametrize(
    ("faked", "amiss"),
    [
        ({"FAKE_GPUS": "24000,24000"}, {}),
        ({"FAKE_GPUS": "24000"}, {"gpus": "1 visible (NVIDIA A30), 2 used"}),
        ({"FAKE_GPUS": ""}, {"gpus": "0 visible"}),
        ({"FAKE_INIT": "100"}, {"gpus": "CUDA_ERROR_NO_DEVICE"}),
        ({"FAKE_INIT": "999"}, {"gpus": "error 999"}),
        (
            {"FAKE_GPUS": "24000,9000"},
            {"gpu_free": "000001: 9,000 of 24,576 MiB free; vLLM takes 22,610"},
        ),
        ({"FAKE_GPUS": "24000,24000", "FAKE_PID": "4711"}, {"gpu_free": "compute on it: 4711"}),
    ],
)
def test_a_gpu_node_that_is_unfit_is_refused(
    tmp_path: Path, driver: Path, faked: dict[str, str], amiss: dict[str, str]
) -> None:
    run_dir = write_plan(
        msgspec.structs.replace(gpu_plan(2), mode=Mode.PREFLIGHT), tmp_path / "run"
    )
    env = {"LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": "", **faked}
    with Job(run_dir, 1, env={0: env}) as job:
        assert job.wait() == {0: 3 if amiss else 0}, job.said(0)
    record = job.record
    assert {name for _, name in failed(record)} == set(amiss)
    for name, text in amiss.items():
        assert any(text in check.text for check in checks_of(record.preflight[0], name))


def test_a_gpu_run_without_a_driver_never_falls_back_to_the_cpu(tmp_path: Path) -> None:
    record = refused(gpu_plan(1), tmp_path / "run")
    assert failed(record) == {("n0", "gpus")}
    (check,) = checks_of(record.preflight[0], "gpus")
    assert "--nv" in check.text and "never falls back" in check.text


def test_a_driver_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOOK_S", 0.01)
    with pytest.raises(gpus.CudaError, match="did not answer"):
        gpus.look()


@pytest.mark.parametrize(
    ("runs", "built_for", "ok"),
    [
        ((13, 0), (13, 0), True),
        ((13, 0), (12, 8), True),
        ((13, 0), (13, 1), True),
        ((12, 8), (13, 0), False),
        ((13, 0), "torch 2.13.0+cpu is built for the CPU. Use the CUDA image", False),
    ],
)
def test_a_driver_runs_what_is_built_for_its_major_version(
    runs: tuple[int, int], built_for: tuple[int, int] | str, ok: bool
) -> None:
    check = node_check._driver(gpus.Cuda(version=runs, driver="580", gpus=()), built_for)
    assert check.ok is ok


def test_torchs_cuda_is_read_without_importing_it() -> None:
    # The environment of the tests has the CPU's torch.
    assert "is built for the CPU" in str(node_check._torch_cuda())


@pytest.mark.parametrize(
    ("extra_args", "share"),
    [
        ((), 0.92),
        (("--gpu-memory-utilization", "0.8"), 0.8),
        (("--gpu-memory-utilization=0.5", "--x"), 0.5),
        (("--gpu-memory-utilization",), 0.92),
    ],
)
def test_the_share_of_a_gpu_is_vllms(extra_args: tuple[str, ...], share: float) -> None:
    assert utilization(extra_args) == share


def flip_a_byte_in_the_middle(weights: bytearray) -> None:
    weights[len(weights) // 2] ^= 1


def cut_the_end(weights: bytearray) -> None:
    del weights[-1:]


@pytest.mark.parametrize("damage", [flip_a_byte_in_the_middle, cut_the_end])
@pytest.mark.parametrize("large", [False, True])
def test_a_fingerprint_tells_models_apart(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytearray], None],
    large: bool,
) -> None:
    monkeypatch.setenv("SUT_CACHE", str(tmp_path / "cache"))
    if large:  # as if three mebibytes were too much to hash whole
        monkeypatch.setattr(node_check, "WHOLE_HASH_BYTES", 2**20)
    folder = small_model(tmp_path / "model", "x")
    file = folder / "model.safetensors"
    file.write_bytes(bytes(3 * 2**20))
    told, before = fingerprint(folder)
    assert ("pieces" in told) is large and fingerprint(folder)[1] == before
    weights = bytearray(file.read_bytes())
    damage(weights)
    file.write_bytes(weights)
    assert fingerprint(folder)[1] != before
