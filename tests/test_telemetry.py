"""A node's meters are sampled, and missing meters are left out without a message.

Test machines have neither GPUs nor CPU meters. The GPU driver is a fake library behind NVIDIA's own
Python binding, and the CPU's meters are a folder like ``/sys``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import ROOM, environment, fast, latest, set_arguments, submit

from sut.machine import meters, nvml
from sut.machine.environment import Environment
from sut.machine.meters import Gpu, Reading
from sut.results import telemetry
from sut.rundir import RunDir

TURN_UJ = 262_143_328_850  # where a package's counter wraps around


def zone(sysfs: Path, folder: str, name: str, energy_uj: int) -> Path:
    path = sysfs / "class" / "powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{TURN_UJ}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path / "energy_uj"


def clock(sysfs: Path, cpu: int, khz: int) -> None:
    folder = sysfs / "devices" / "system" / "cpu" / f"cpu{cpu}" / "cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text(f"{khz}\n")


def test_counts_packages_and_dram_and_handles_wrapped_counters(tmp_path: Path) -> None:
    packages = [
        zone(tmp_path, "intel-rapl:0", "package-0", TURN_UJ - 1_000_000),
        zone(tmp_path, "intel-rapl:1", "package-1", 5_000_000),
    ]
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 0)
    cores = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    platform = zone(tmp_path, "intel-rapl:2", "psys", 0)
    same_again = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    node = meters.Node(None, tmp_path)
    first = node.read()
    assert (first.cpu_energy_j, first.dram_energy_j) == (0, 0)
    packages[0].write_text("2000000\n")  # 3 J later, past the wrap
    packages[1].write_text("9000000\n")
    dram.write_text("500000\n")
    for other in (cores, platform, same_again):
        other.write_text("77000000\n")
    second = node.read()
    assert second.cpu_energy_j == pytest.approx(7, abs=1e-3)
    assert second.dram_energy_j == pytest.approx(0.5)


def test_the_clock_is_the_mean_of_usable_cores(tmp_path: Path) -> None:
    usable = sorted(os.sched_getaffinity(0))
    for cpu in usable:
        clock(tmp_path, cpu, 2_000_000 if cpu == usable[0] else 3_000_000)
    clock(tmp_path, usable[-1] + 1, 9_000_000)
    mean = (2000 + 3000 * (len(usable) - 1)) / len(usable)
    assert meters.Node(None, tmp_path).read().cpu_clock_mhz == pytest.approx(mean, abs=0.1)


def test_a_node_without_meters_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "telemetry" / "jw2.jsonl"
    with meters.Sampler(path, tmp_path / "sys"):
        pass
    assert not path.parent.exists()


def test_leaves_out_a_broken_meter(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("no number\n")
    counter = zone(tmp_path, "intel-rapl:1", "package-1", 1)
    node = meters.Node(None, tmp_path)
    counter.unlink()
    assert node.read().cpu_energy_j is None


def sampled(driver: Path | None, path: Path, **changes: str) -> list[Reading]:
    """The readings of a process with that driver, in about two seconds."""
    program = (
        "import sys, time; from pathlib import Path; from sut.machine import meters\n"
        "with meters.Sampler(Path(sys.argv[1]), Path('/no/sys')): time.sleep(1.8)"
    )
    env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    env |= {"LD_LIBRARY_PATH": str(driver)} if driver else {}
    subprocess.run([sys.executable, "-c", program, str(path)], env=env | changes, check=True)
    return telemetry.read(path)


def test_reads_gpus_through_nvml(fake_driver: Path, tmp_path: Path) -> None:
    readings = sampled(fake_driver, tmp_path / "jw2.jsonl")
    assert len(readings) >= 3
    first, last = readings[0], readings[-1]
    full, old = last.gpus
    before = first.gpus[0].energy_j
    assert full.energy_j is not None and before is not None
    passed_s = last.unix_s - first.unix_s
    assert full.energy_j - before == pytest.approx(100 * passed_s, abs=2)
    assert full == Gpu(
        index=0,
        energy_j=full.energy_j,
        power_w=100,
        sm_clock_mhz=1440,
        memory_clock_mhz=1215,
        temperature_c=61,
        utilization=0.97,
        memory_used_mib=22 * 1024,
        slowed_by_power=True,
        slowed_by_heat=False,
    )
    assert (old.energy_j, old.utilization) == (None, None)
    assert (old.power_w, old.slowed_by_heat) == (50.5, True)


def test_reads_only_the_gpus_of_this_job(fake_driver: Path, tmp_path: Path) -> None:
    for visible, indices in (
        ("1", [1]),
        ("GPU-0000", [0]),
        ("GPU-1111", [1]),
        ("7", []),
        ("NoDevFiles", []),
        ("1,-1,0", [1]),
    ):
        path = tmp_path / f"visible-{visible}.jsonl"
        readings = sampled(fake_driver, path, CUDA_VISIBLE_DEVICES=visible)
        assert [gpu.index for gpu in readings[0].gpus] == indices, visible
    assert sampled(fake_driver, tmp_path / "hidden.jsonl", CUDA_VISIBLE_DEVICES="") == []


def test_names_gpus_that_cannot_be_read(fake_driver: Path, tmp_path: Path) -> None:
    """Nothing of a whole GPU is read for a part of it."""
    for number, (changes, why) in enumerate(
        (
            ({"FAKE_MIG": "admin", "CUDA_VISIBLE_DEVICES": "MIG-2222"}, "not MIG"),
            ({"FAKE_MIG": "admin", "CUDA_VISIBLE_DEVICES": "0"}, "not MIG"),
            ({"FAKE_NAMES": "NVIDIA T4,NVIDIA A30", "CUDA_VISIBLE_DEVICES": "0"}, "several kinds"),
            ({"FAKE_REFUSE": "HandleByIndex0=15", "CUDA_VISIBLE_DEVICES": "0"}, "not all of them"),
        )
    ):
        readings = sampled(fake_driver, tmp_path / f"{number}.jsonl", **changes)
        assert readings and readings[0].gpus == [] and why in readings[0].gpus_missing, changes
        summary = telemetry.summarize("n", readings, 0, readings[-1].unix_s)
        assert summary is not None and "GPUs" not in summary.energy_j


def test_a_lost_gpu_hides_no_other(fake_driver: Path, tmp_path: Path) -> None:
    lost = {"FAKE_REFUSE": "HandleByIndex0=15", "CUDA_VISIBLE_DEVICES": "1"}
    readings = sampled(fake_driver, tmp_path / "lost.jsonl", **lost)
    assert [gpu.index for gpu in readings[0].gpus] == [1] and readings[0].gpus_missing == ""
    ordered = {"FAKE_NAMES": "NVIDIA T4,NVIDIA A30", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    readings = sampled(fake_driver, tmp_path / "kinds.jsonl", **ordered, CUDA_VISIBLE_DEVICES="1")
    assert [gpu.index for gpu in readings[0].gpus] == [1]


def test_leaves_out_a_reading_that_is_refused(fake_driver: Path, tmp_path: Path) -> None:
    refused = "MemoryInfo=3,ComputeRunningProcesses=4"
    readings = sampled(fake_driver, tmp_path / "gb10.jsonl", FAKE_REFUSE=refused)
    first, second = readings[0].gpus
    assert first.memory_used_mib is None and second.memory_used_mib is None
    assert first.energy_j is not None and first.power_w == 100


class Listed:
    """NVML's Python binding, of a node with these GPUs."""

    NVMLError = RuntimeError

    def __init__(self, *uuids: str) -> None:
        self._uuids = uuids

    def __getattr__(self, name: str) -> Callable[..., object]:
        answers = {
            "nvmlSystemGetDriverVersion": lambda: "580",
            "nvmlDeviceGetCount": lambda: len(self._uuids),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: self._uuids[handle],
            "nvmlDeviceGetName": lambda _: "NVIDIA A30",
            "nvmlDeviceGetMigMode": lambda _: [0, 0],
        }
        return answers[name]


@pytest.mark.parametrize(
    ("visible", "places", "indices"),
    [
        (None, None, [0, 1, 2, 3]),
        (None, [0, 1], [0, 1]),
        ("2,3", [0], [2]),
        ("2,3", [1], [3]),
        ("2,3", [], []),
        ("3,1", None, [3, 1]),
        ("2", [0, 1], [2]),
        ("GPU-cccc,GPU-aaaa", [1], [0]),
    ],
)
def test_reads_the_runs_own_gpus_among_the_jobs(
    visible: str | None, places: list[int] | None, indices: list[int]
) -> None:
    module: Any = Listed("GPU-aaaa", "GPU-bbbb", "GPU-cccc", "GPU-dddd")
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = nvml.Nvml(module).visible(places, environment)
    assert [gpu.index for gpu in found.gpus] == indices
    assert bool(found.missing) == (visible == "2")


@pytest.mark.parametrize(
    ("visible", "places"),
    [
        (None, [0, 1, 2, 3]),
        ("MIG-377e0049-554c-540b-93c6-d0976f8426cb", []),
        ("MIG-GPU-aaaa/7/0", []),  # of drivers before R470
        ("NoDevFiles", []),
        ("void", []),
        ("-1", []),
        ("", []),
        (" 1 , 0", [1, 0]),
        ("0,-1,2", [0]),
        ("4,0", []),
        ("GPU-", []),  # the beginning of several
        ("1,GPU-dd", [1, 3]),
        ("1,1", [1]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(
    visible: str | None, places: list[int]
) -> None:
    assert nvml.chosen(visible, ["GPU-aaaa", "GPU-bbbb", "GPU-cccc", "GPU-dddd"]) == places


def test_mig_instances_stand_for_their_gpu(fake_driver: Path) -> None:
    found = environment_of(LD_LIBRARY_PATH=str(fake_driver), FAKE_MIG="plain")
    assert [(gpu.name, gpu.uuid[:8], gpu.memory_mib) for gpu in found.gpus] == [
        ("NVIDIA A30 MIG 2g.12gb", "MIG-2222", 11968),
        ("NVIDIA A30 MIG 2g.12gb", "MIG-3333", 11968),
    ]


def test_without_a_driver_there_are_no_readings(tmp_path: Path) -> None:
    assert sampled(None, tmp_path / "jw2.jsonl") == []


def environment_of(**env: str) -> Environment:
    """The environment of a process with these variables."""
    program = (
        "import msgspec; from sut.machine import environment\n"
        "print(msgspec.json.encode(environment.collect()).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **env},
        check=True,
        capture_output=True,
    )
    return msgspec.json.decode(done.stdout, type=Environment)


def test_the_environment_reads_gpus_through_nvml(fake_driver: Path) -> None:
    found = environment_of(
        LD_LIBRARY_PATH=str(fake_driver), FAKE_GPUS="24000,-", CUDA_VISIBLE_DEVICES="1"
    )
    assert [(gpu.name, gpu.uuid, gpu.memory_mib) for gpu in found.gpus] == [
        ("NVIDIA A30", "GPU-00000000-0000-0000-0000-000000000000", 24576),
        ("NVIDIA A30", "GPU-11111111-1111-1111-1111-111111111111", None),
    ]
    assert found.gpu_driver == "580.65.06"
    refused = environment_of(LD_LIBRARY_PATH=str(fake_driver), FAKE_NVML_INIT="9")
    for without in (refused, environment_of()):
        assert (without.gpus, without.gpu_driver) == ((), None)
    unnamed = environment_of(LD_LIBRARY_PATH=str(fake_driver), FAKE_REFUSE="Name=4,UUID=4")
    assert {(gpu.name, gpu.uuid) for gpu in unnamed.gpus} == {("unknown", "unknown")}


def test_without_the_nvml_package_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with nvml.opened() as found:
        assert (found.gpus, found.driver, found.visible()) == ([], None, ((), ""))
        assert "nvidia-ml-py" in found.problem


def readings_of(power_w: float, begin: float, count: int) -> list[Reading]:
    """One reading a second, at constant power."""
    return [
        Reading(
            unix_s=begin + n,
            cpu_energy_j=power_w * n,
            gpus=[Gpu(index=0, energy_j=1000 + 2 * power_w * n, power_w=2 * power_w + n % 2)],
        )
        for n in range(count)
    ]


def test_a_phases_energy_covers_only_its_time() -> None:
    readings = readings_of(50.0, 100.0, 60)
    summary = telemetry.summarize("jw2", readings, 110.5, 130.25)
    assert summary is not None
    assert summary.cpu_energy_j == pytest.approx(50 * 19.75, abs=0.1)
    assert summary.gpus[0].energy_j == pytest.approx(100 * 19.75, abs=0.1)
    assert list(summary.energy_j) == ["CPU", "GPUs"]
    assert sum(summary.energy_j.values()) == pytest.approx(150 * 19.75, abs=0.2)
    assert summary.num_readings == 20 and summary.dram_energy_j is None
    assert summary.gpus[0].power_w_max == 101


def test_extrapolates_energy_only_a_little_beyond_readings() -> None:
    readings = readings_of(50.0, 100.0, 11)
    just_over = telemetry.summarize("jw2", readings, 101.0, 111.0)
    assert just_over is not None and just_over.cpu_energy_j == pytest.approx(500, abs=0.1)
    cut = telemetry.summarize("jw2", readings, 101.0, 200.0)
    assert cut is not None and cut.cpu_energy_j is None
    assert telemetry.summarize("jw2", readings, 200.0, 300.0) is None
    assert telemetry.summarize("jw2", [], 0.0, 300.0) is None


def test_leaves_out_a_truncated_line(tmp_path: Path) -> None:
    path = tmp_path / "jw2.jsonl"
    lines = [msgspec.json.encode(reading) for reading in readings_of(1.0, 0.0, 3)]
    path.write_bytes(b"\n".join(lines) + b'\n{"unix_s": 17')
    assert len(telemetry.read(path)) == 3


def test_leaves_out_what_is_before_a_clock_set_back(tmp_path: Path) -> None:
    path = tmp_path / "jw2.jsonl"
    before, after = readings_of(50.0, 100.0, 10), readings_of(50.0, 90.0, 10)
    path.write_bytes(b"\n".join(map(msgspec.json.encode, [*before, *after])))
    summary = telemetry.summarize("jw2", telemetry.read(path), 92.0, 98.0)
    assert summary is not None and summary.cpu_energy_j == pytest.approx(300, abs=0.1)


def test_a_records_telemetry_matches_the_nodes_meters(tmp_path: Path) -> None:
    offered = meters.Node(None).offers_something
    submit(tmp_path, *fast())
    (phase,) = latest(tmp_path).phases
    assert bool(phase.telemetry) == bool(RunDir(tmp_path / "runs/latest").telemetry_files())
    assert bool(phase.telemetry) == offered
    record = json.loads((tmp_path / "runs/latest/record.json").read_text())
    assert "telemetry" in record["phases"][0]
    assert phase.start_unix_s is not None and abs(phase.start_unix_s - time.time()) < 60


def test_record_and_report_contain_the_gpus_energy(fake_driver: Path, tmp_path: Path) -> None:
    env = environment(LD_LIBRARY_PATH=str(fake_driver), FAKE_GPUS="22700,22700,22700")
    env.pop("CUDA_VISIBLE_DEVICES", None)
    sets = ["scenarios.server.min_duration_ms=3000", "site.device=cuda", "site.num_replicas=2"]
    long = set_arguments(sets)
    assert submit(tmp_path, *fast(), *ROOM, *long, env=env).returncode == 0
    (phase,) = latest(tmp_path).phases
    (node,) = phase.telemetry
    full, old = node.gpus  # the third GPU is not the run's
    assert phase.duration_s is not None and phase.duration_s > 2.5
    assert full.energy_j == pytest.approx(100 * phase.duration_s, rel=0.05)
    assert (full.power_w_mean, full.memory_used_mib_max, full.slowed_by_power) == (100, 1876, 1.0)
    assert (old.energy_j, old.power_w_max) == (None, 50.5)
    page = (tmp_path / "runs/latest/report.html").read_text()
    assert "<h3>Power</h3>" in page and "<h3>Clocks</h3>" in page
    assert "J a token" not in page  # GPU 1 has no energy counter
    assert "This is not MLPerf Power" in page and "1.83 GiB" in page


def test_a_run_without_gpus_has_nobodys_energy(fake_driver: Path, tmp_path: Path) -> None:
    env = environment(LD_LIBRARY_PATH=str(fake_driver), CUDA_VISIBLE_DEVICES="0,1")
    assert submit(tmp_path, *fast(), *ROOM, env=env).returncode == 0
    (phase,) = latest(tmp_path).phases
    assert all(node.gpus == () and node.gpus_missing == "" for node in phase.telemetry)


def test_the_report_names_gpus_that_were_not_read(fake_driver: Path, tmp_path: Path) -> None:
    env = environment(LD_LIBRARY_PATH=str(fake_driver), FAKE_MIG="plain")
    env["CUDA_VISIBLE_DEVICES"] = "MIG-22222222-2222-2222-2222-222222222222"
    # A reading a second: a shorter test may have none.
    sets = set_arguments(["site.device=cuda", "scenarios.server.min_duration_ms=3000"])
    run = submit(tmp_path, *fast(), *ROOM, *sets, env=env)
    assert run.returncode == 0, run.stdout + run.stderr
    (phase,) = latest(tmp_path).phases
    (node,) = phase.telemetry
    assert node.gpus == () and "whole GPUs only, not MIG" in node.gpus_missing
    page = (tmp_path / "runs/latest/report.html").read_text()
    assert "were not read: NVML reads energy" in page and "J a token" not in page
