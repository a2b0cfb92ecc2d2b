"""The checks of every node before an engine starts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest
from cli import until
from jobs import Job, as_root, plan_for, write_plan
from plans import plan_of

from sut.cluster.allocation import Allocation
from sut.machine import cuda, environment
from sut.plan.benchmark import Dataset, DatasetKind, EngineKind
from sut.plan.fit import Fit, utilization
from sut.plan.plan import Mode, Node, Part, Plan, Replica
from sut.plan.site import Device
from sut.results.progress import Progress
from sut.results.record import NodePreflight, PreflightCheck, Record
from sut.serving import channel, gpu_check, listening, node_check, preflight
from sut.serving.channel import LostError
from sut.serving.messages import REQUEST, GetState, State
from sut.serving.node_check import fingerprint
from sut.serving.nodes import Nodes
from sut.serving.remote import RemoteNode
from sut.serving.wire import VLLM_VERSION


def checks_of(node: NodePreflight, name: str) -> list[PreflightCheck]:
    return [check for check in node.checks if check.name == name]


def failed(record: Record) -> set[tuple[str, str]]:
    """Node and name of every failed check."""
    return {(node.node, c.name) for node in record.preflight for c in node.checks if not c.ok}


def refused(plan: Plan, folder: Path, **around: object) -> Record:
    """The record of a run that preflight refuses and that ends on every node."""
    run_dir = write_plan(plan, folder)
    num_nodes = len(plan.nodes)
    with Job(run_dir, num_nodes, **around) as job:  # type: ignore[arg-type]
        codes = job.wait()
    assert codes == {0: 3} | dict.fromkeys(range(1, num_nodes), 0), job.output(0)
    assert not run_dir.logs.exists() or not list(run_dir.logs.iterdir())
    failure = job.record.failure
    assert failure is not None and failure.code == "preflight"
    for node, name in failed(job.record):
        assert f"{node}: {name}:" in failure.message
    assert "## Preflight" in run_dir.report.read_text()
    return job.record


def test_records_passed_checks_too(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, mode=Mode.PREFLIGHT, interface="lo"), tmp_path / "run")
    with Job(run_dir, 2) as job:
        assert job.wait() == {0: 0, 1: 0}, job.output(0)
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
        "same_packages",
    }
    (latency,) = checks_of(other, "latency")
    assert latency.measured is not None and 0 < latency.measured < 20 and latency.unit == "ms"
    assert [node.hostname for node in record.nodes] == [record.environment.hostname]
    assert "| `latency` | - |" in run_dir.report.read_text()


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("--no-enable-chunked-prefill", f"vLLM {VLLM_VERSION}"),
        (
            "--watchdog-config={}",
            f"vLLM {VLLM_VERSION} has no option --watchdog-config; 0.33.0 has",
        ),
    ],
)
def test_checks_options_against_the_installed_version(word: str, text: str) -> None:
    if not environment.versions(environment.VLLM):
        pytest.skip("vLLM is not installed")
    plan = plan_of("smollm2-135m-news", sets=[f'engine.extra_args=["{word}"]'])
    check = node_check._engine(plan)
    assert check.ok is (text == f"vLLM {VLLM_VERSION}") and text in check.text


@pytest.mark.parametrize("core", [min(os.sched_getaffinity(0)), 100_000])
def test_binds_engines_to_the_chosen_nodes_cores(tmp_path: Path, core: int) -> None:
    candidates = (Node(name="other", cpus=(99_999,)), Node(name="n0", cpus=(core,)))
    plan = plan_for(1, mode=Mode.PREFLIGHT, candidates=candidates)
    run_dir = write_plan(plan, tmp_path / "run")
    with Job(run_dir, 1) as job:
        job.wait()
    (check,) = checks_of(job.record.preflight[0], "cores")
    assert check.measured == 1 and check.ok is (core < 100_000)
    assert ("not usable: 100000. Correct cpus:" in check.text) is not check.ok
    assert job.record.plan == plan  # the digest is that of the plan as it was submitted


def test_reports_all_problems_of_all_nodes_together(tmp_path: Path) -> None:
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
def test_names_the_node_with_other_files(tmp_path: Path) -> None:
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


def slow_proxy(port: int, delay_s: float) -> int:
    """The port of a proxy to ``port`` of this machine that delays every packet."""
    listener = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while packet := source.recv(2**16):
                time.sleep(delay_s)
                target.sendall(packet)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with listener:
            near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=forward, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_refuses_a_slow_network(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as head:
        path = run_dir.rendezvous("77-0")
        until(path.is_file)
        meeting = json.loads(path.read_text())
        meeting["address"]["port"] = slow_proxy(meeting["address"]["port"], 0.03)
        path.write_text(json.dumps(meeting))
        with Job(run_dir, 2, absent=[0]) as other:
            assert head.wait() == {0: 3} and other.wait() == {1: 0}, head.output(0)
    assert failed(head.record) == {("n1", "latency")}
    (latency,) = checks_of(head.record.preflight[1], "latency")
    assert latency.measured is not None and 60 <= latency.measured < 120


def test_refuses_a_missing_interface(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2, interface="ib7"), tmp_path / "run")
    with Job(run_dir, 2, absent=[1]) as job:
        assert job.wait() == {0: 3}
    failure = job.record.failure
    assert failure is not None and failure.code == "interface"
    assert "no IPv4 address on interface 'ib7'" in failure.message
    assert "its interfaces: lo" in failure.message


def test_a_timed_out_node_reports_its_current_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_model(tmp_path / "model", "x")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")  # a disk that never answers
    monkeypatch.setattr(preflight, "TIME_S", 0.5)
    run_dir = write_plan(plan_for(1), tmp_path / "run")
    with Nodes(plan_for(1), run_dir, Allocation()) as nodes:
        found = preflight.check(nodes, folder, Progress(run_dir.progress))
    (check,) = found.nodes[0].checks
    assert (
        check.name == "time"
        and not check.ok
        and "timed out after 0.5 s while reading the model" in check.text
    )


class OtherNode:
    """A node's end of a channel whose clock is wrong and whose answers are late."""

    def __init__(self, ahead_s: float, late_s: float) -> None:
        self._ahead_s = ahead_s
        self._late_s = late_s
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = channel.Address("127.0.0.1", listener.getsockname()[1])
            connecting = threading.Thread(target=self._connect, args=[address], daemon=True)
            connecting.start()
            accepted, _ = listener.accept()
        self.channel = channel.Channel(accepted).authenticate(b"secret", asked_first=False)

    def _connect(self, address: channel.Address) -> None:
        end = channel.connect(address, b"secret")
        with contextlib.suppress(LostError):
            while isinstance(end.receive(REQUEST), GetState):
                time.sleep(self._late_s)
                end.send(State(time_ns=time.time_ns() + int(self._ahead_s * 1e9)))
        end.close()


def test_names_what_every_process_listens_on(tmp_path: Path) -> None:
    run_dir = write_plan(plan_for(2), tmp_path / "run")
    with Job(run_dir, 2) as job:
        assert job.wait() == {0: 0, 1: 0}, job.output(0)
    (head,) = checks_of(job.record.preflight[0], "listening")
    (other,) = checks_of(job.record.preflight[1], "listening")
    # Three sockets for each of two replicas; the rendezvous is over.
    assert head.ok and head.measured == 6 and head.text.count("127.0.0.1:") == 6
    assert other.ok and other.measured == 0 and other.text == "the run on no port"


def test_a_socket_of_ours_on_all_interfaces_fails() -> None:
    with (
        socket.create_server(("", 0)) as open_to_all,
        subprocess.Popen(
            [sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True
        ) as engine,
    ):
        assert engine.stdout is not None
        port = engine.stdout.readline().strip()
        found = listening.check(())
        open_to_all.close()
        without = listening.check(())
        engine.kill()
    assert not found.ok and "(all interfaces)" in found.text and "Set site.host" in found.text
    assert without.ok and f"on 0.0.0.0:{port} (all interfaces)" in without.text


LISTEN = """
import socket, time
with socket.create_server(("", 0)) as server:
    print(server.getsockname()[1], flush=True)
    time.sleep(600)
"""


def test_measures_clocks_and_latency_from_ordinary_requests() -> None:
    node = RemoteNode("n1", "127.0.0.1", OtherNode(ahead_s=-5, late_s=0.03).channel)
    measured = node.link(3)
    # The node reads its clock at the end of the wait, so half of it is added.
    assert -5_100 < measured.clock_ahead_ms < -4_900
    assert measured.round_trip_ms >= 30
    wrong = {check.name for check in preflight._of_link(measured) if not check.ok}
    assert wrong == {"clock", "latency"}
    node.begin_end(0)
    node.await_end(5)


def test_reads_records_with_a_bandwidth_check() -> None:
    text = b'{"name":"bandwidth","ok":true,"text":"","measured":812.3,"unit":"MB/s"}'
    check = msgspec.json.decode(text, type=PreflightCheck)
    assert check == PreflightCheck("bandwidth", ok=True, text="", measured=812.3, unit="MB/s")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fake libcuda and a fake NVML."""
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
    ("faked", "wrong"),
    [
        ({"FAKE_GPUS": "24000,24000"}, {}),
        ({"FAKE_GPUS": "24000"}, {"gpus": "1 visible (NVIDIA A30), 2 used"}),
        ({"FAKE_GPUS": ""}, {"gpus": "0 visible"}),
        ({"FAKE_INIT": "100"}, {"gpus": "CUDA_ERROR_NO_DEVICE"}),
        ({"FAKE_INIT": "999"}, {"gpus": "error 999"}),
        (
            {"FAKE_GPUS": "24000,9000"},
            {"gpu_free": "GPU-11111111-1111-1111-1111-111111111111: 9,000 of 24,576 MiB free"},
        ),
        (
            {"FAKE_GPUS": "24000,9000"},
            {"gpu_free": " MiB free; vLLM takes 22,610"},
        ),
        ({"FAKE_GPUS": "24000,24000", "FAKE_PID": "4711"}, {"gpu_free": "compute on it: 4711"}),
    ],
)
def test_refuses_an_unfit_gpu_node(
    tmp_path: Path, driver: Path, faked: dict[str, str], wrong: dict[str, str]
) -> None:
    run_dir = write_plan(
        msgspec.structs.replace(gpu_plan(2), mode=Mode.PREFLIGHT), tmp_path / "run"
    )
    env = {"LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": "", **faked}
    with Job(run_dir, 1, env={0: env}) as job:
        assert job.wait() == {0: 3 if wrong else 0}, job.output(0)
    record = job.record
    assert {name for _, name in failed(record)} == set(wrong)
    for name, text in wrong.items():
        assert any(text in check.text for check in checks_of(record.preflight[0], name))


@pytest.mark.parametrize(("gib", "ok"), [(22.0, True), (22.1, False)])
def test_a_model_that_does_not_fit_is_refused_on_the_node(
    tmp_path: Path, driver: Path, gib: float, ok: bool
) -> None:
    """The GPUs have 24 GiB, of which vLLM uses 0.92."""
    plan = msgspec.structs.replace(gpu_plan(2), mode=Mode.PREFLIGHT, fit=Fit(gib=gib))
    run_dir = write_plan(plan, tmp_path / "run")
    env = {"LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": "", "FAKE_GPUS": "24000,24000"}
    with Job(run_dir, 1, env={0: env}) as job:
        assert job.wait() == {0: 0 if ok else 3}, job.output(0)
    (check,) = checks_of(job.record.preflight[0], "gpu_memory")
    assert check.ok is ok and f"needs {gib:.1f} GiB per GPU; vLLM uses 22.1 of 24.0" in check.text
    assert ("--set site.check_fit=false" in check.text) is not ok


def probed(driver: Path, **faked: str) -> cuda.Cuda:
    """What a process with this driver finds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LD_LIBRARY_PATH": str(driver), **faked}.items():
            patch.setenv(name, value)
        return cuda.probe()


def mig(digit: int) -> str:
    return f"MIG-{uuid.UUID(bytes=bytes([0x11 * digit] * 16))}"


@pytest.mark.parametrize("rights", ["plain", "admin"])
def test_a_mig_instance_has_its_own_memory_and_processes(driver: Path, rights: str) -> None:
    (gpu,) = probed(driver, FAKE_MIG=rights, CUDA_VISIBLE_DEVICES="").gpus
    assert (gpu.uuid, gpu.name) == (mig(2), "NVIDIA A30 MIG 2g.12gb")
    assert (gpu.memory_mib, gpu.free_mib, gpu.pids, gpu.missing) == (11968, 11950, (), ())
    assert gpu_check.free_gpu(gpu, 0.92, []).ok


def test_each_mig_instance_is_probed(driver: Path) -> None:
    listed = f"{mig(2)},{mig(3)}"
    found = probed(driver, FAKE_MIG="plain", CUDA_VISIBLE_DEVICES=listed)
    assert [gpu.uuid for gpu in found.gpus] == [mig(2), mig(3)]


def test_an_old_driver_reports_nothing_of_a_mig_instance(tmp_path: Path) -> None:
    """It gives the whole GPU's UUID, whose memory and processes are others' too."""
    source, library = Path(__file__).parent / "fake_driver.c", tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-DOLD", "-shared", "-fPIC", "-o", library, source], check=True)
    shutil.copy(library, tmp_path / "libnvidia-ml.so.1")
    (gpu,) = probed(tmp_path, FAKE_MIG="admin", CUDA_VISIBLE_DEVICES="").gpus
    assert (gpu.memory_mib, gpu.free_mib, gpu.pids) == (11 * 1024, None, None)
    check = gpu_check.free_gpu(gpu, 0.92, [])
    assert check.ok and check.measured is None
    assert "11,264 MiB; free memory not checked; other processes not checked" in check.text
    assert "in MIG mode" in check.text


@pytest.mark.parametrize("refused", ["MemoryInfo=3", ""])
def test_unified_memory_is_the_hosts(driver: Path, refused: str) -> None:
    faked = {"FAKE_UNIFIED": "1", "FAKE_GPUS": "1", "CUDA_VISIBLE_DEVICES": ""}
    (gpu,) = probed(driver, FAKE_REFUSE=refused, **faked).gpus
    assert gpu.memory_mib == (120 * 1024 if refused else 24576)
    assert gpu.free_mib is not None  # NVML's is 1 MiB
    assert 1 < gpu.free_mib <= psutil.virtual_memory().total / 2**20
    assert gpu.missing == (("MemoryInfo: Not Supported",) if refused else ())


def test_a_refused_query_is_named(driver: Path) -> None:
    refused = {"FAKE_REFUSE": "MemoryInfo=3,ComputeRunningProcesses=4,Name=4", "FAKE_GPUS": "1"}
    (gpu,) = probed(driver, **refused, CUDA_VISIBLE_DEVICES="").gpus
    assert (gpu.name, gpu.memory_mib, gpu.free_mib) == ("NVIDIA GB10", 120 * 1024, None)
    check = gpu_check.free_gpu(gpu, 0.92, [])
    assert check.ok and "ComputeRunningProcesses: Insufficient Permissions" in check.text
    assert "MemoryInfo: Not Supported" in check.text


def test_cuda_works_without_nvml(tmp_path: Path, driver: Path) -> None:
    shutil.copy(driver / "libcuda.so.1", tmp_path)
    found = probed(tmp_path, CUDA_VISIBLE_DEVICES="", FAKE_GPUS="1")
    (gpu,) = found.gpus
    assert found.driver is None and gpu.memory_mib == 120 * 1024
    assert gpu.missing == ("NVML: NVML Shared Library Not Found",)
    assert "driver of unknown version runs CUDA" in gpu_check.driver(found, None).text


def test_a_warm_engine_is_no_stranger_on_its_gpu() -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as engine:
        gpu = cuda.Gpu(uuid="GPU-1", name="A30", memory_mib=100, free_mib=5, pids=(engine.pid,))
        warm = gpu_check.free_gpu(gpu, 0.9, [engine.pid])
        stranger = gpu_check.free_gpu(gpu, 0.9, [])
        gpu = msgspec.structs.replace(gpu, pids=(engine.pid, os.getpid()))
        both = gpu_check.free_gpu(gpu, 0.9, [engine.pid])
        engine.kill()
    assert warm.ok and not stranger.ok and not both.ok
    unknown = msgspec.structs.replace(gpu, pids=None)
    assert gpu_check.free_gpu(unknown, 0.9, [engine.pid]).ok
    assert not gpu_check.free_gpu(unknown, 0.9, []).ok
    assert str(os.getpid()) in both.text and str(engine.pid) not in both.text


def test_a_gpu_run_never_falls_back_to_the_cpu(tmp_path: Path) -> None:
    record = refused(gpu_plan(1), tmp_path / "run")
    assert failed(record) == {("n0", "gpus")}
    (check,) = checks_of(record.preflight[0], "gpus")
    assert "--nv" in check.text and "never falls back" in check.text


def test_gives_up_on_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "PROBE_S", 0.01)
    with pytest.raises(cuda.CudaError, match=r"no answer from the NVIDIA driver within 0\.01 s"):
        cuda.probe()


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
def test_a_driver_runs_builds_of_its_major_version(
    runs: tuple[int, int], built_for: tuple[int, int] | str, ok: bool
) -> None:
    check = gpu_check.driver(cuda.Cuda(version=runs, driver="580", gpus=()), built_for)
    assert check.ok is ok


def test_reads_torchs_cuda_without_importing_torch() -> None:
    # The environment of the tests has the CPU's torch.
    assert "is built for the CPU" in str(gpu_check.torch_cuda())


@pytest.mark.parametrize(
    ("extra_args", "share"),
    [
        ((), 0.92),
        (("--gpu-memory-utilization", "0.8"), 0.8),
        (("--gpu-memory-utilization=0.5", "--x"), 0.5),
        (("--gpu-memory-utilization",), 0.92),
    ],
)
def test_the_needed_gpu_memory_follows_vllms_option(
    extra_args: tuple[str, ...], share: float
) -> None:
    assert utilization(extra_args) == share


def flip_a_byte_in_the_middle(weights: bytearray) -> None:
    weights[len(weights) // 2] ^= 1


def truncate(weights: bytearray) -> None:
    del weights[-1:]


@pytest.mark.parametrize("damage", [flip_a_byte_in_the_middle, truncate])
@pytest.mark.parametrize("large", [False, True])
def test_a_fingerprint_changes_with_a_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytearray], None],
    large: bool,
) -> None:
    monkeypatch.setenv("SUT_CACHE", str(tmp_path / "cache"))
    if large:  # three mebibytes count as too large to hash whole
        monkeypatch.setattr(node_check, "WHOLE_HASH_BYTES", 2**20)
    folder = small_model(tmp_path / "model", "x")
    file = folder / "model.safetensors"
    file.write_bytes(bytes(3 * 2**20))
    how, before = fingerprint(folder)
    assert ("pieces" in how) is large and fingerprint(folder)[1] == before
    weights = bytearray(file.read_bytes())
    damage(weights)
    file.write_bytes(weights)
    assert fingerprint(folder)[1] != before
