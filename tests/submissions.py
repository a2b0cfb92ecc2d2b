"""Runs for submissions: real runs of the replay benchmark, and copies that look like official ones,
so that each reason for a refusal can be tested alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
from records import engine

from sut.inputs import hashes
from sut.machine import environment
from sut.machine.environment import Environment, Gpu
from sut.plan import config
from sut.plan.benchmark import DatasetKind, EngineKind, Model, Preset, ScenarioSettings
from sut.plan.plan import Mode, Node, Plan
from sut.plan.site import Device
from sut.results import mllog, record, settings, verification
from sut.results.judge import overall
from sut.results.phase_record import PhaseRecord
from sut.results.record import Hashes, Record
from sut.rundir import RunDir

OFFICIAL_DATA = "6d066a21bd615909466885d53b664b73c5aabc32d60c1cbd03f4293de6430026"
GIT = environment.git()

SYSTEM = {
    "status": "available",
    "system_name": "Two nodes (1x A30)",
    "host_storage_type": "NVMe SSD",
    "host_storage_capacity": "1 TB",
    "host_memory_configuration": "8x 32 GB DDR4",
    "host_networking": "25 Gb Ethernet",
    "host_networking_topology": "one switch",
    "host_network_card_count": "1",
    "accelerator_host_interconnect": "PCIe Gen4 x16",
    "accelerator_memory_configuration": "HBM2",
    "accelerator_interconnect": "none",
    "cooling": "air",
}


def site_file(folder: Path, **changes: Any) -> Path:
    """A site that describes its system; fields that are None are left out."""
    system = {name: value for name, value in {**SYSTEM, **changes}.items() if value is not None}
    path = folder / "site.yaml"
    path.write_bytes(msgspec.yaml.encode({"name": "site", "device": "cuda", "system": system}))
    assert config.load_site(str(path))
    return path


def as_official(run: Path, folder: Path, plan: Any = None, **changes: Any) -> Path:
    """A copy of a run as if it were of llama3.1-8b on one A30. ``plan`` changes its plan,
    ``changes`` its record."""
    target = folder / run.name
    shutil.copytree(run.resolve(), target)
    before = record.read(target)
    write(target, _official_plan(before.plan, **(plan or {})), before, **changes)
    return target


def write(run: Path, plan: Plan, before: Record, **changes: Any) -> None:
    """Replace the plan and the record of a run, consistently in all its files. Tests that are not
    in the plan are left out."""
    run_dir = RunDir(run)
    run_dir.plan.write_bytes(msgspec.json.encode(plan))
    run_dir.user_conf.write_text(plan.user_conf())
    phases = tuple(_of_plan(phase, plan, run_dir) for phase in before.phases)
    phases = tuple(phase for phase in phases if phase.test in plan.tests)
    verdict = overall(phase.verdict for phase in phases)
    values: dict[str, Any] = {
        "environment": _with_gpu(before.environment),
        "hashes": Hashes(model="a" * 64, data=OFFICIAL_DATA),
        "phases": phases,
        "verdict": verdict,
        "exit_code": record.exit_code(verdict),
        **changes,
    }
    after = msgspec.structs.replace(before, plan=plan, plan_digest=plan.digest(), **values)
    record.write(after, run_dir)


def _of_plan(phase: PhaseRecord, plan: Plan, run_dir: RunDir) -> PhaseRecord:
    """The phase as if LoadGen had run with the plan's settings."""
    mode = Mode(phase.name)
    if mode is Mode.COMPLIANCE and plan.compliance is None:
        return phase
    values: dict[str, Any] = settings.of_plan(plan, mode)
    if plan.scenario.loadgen == "Offline":
        values["generated_samples_per_query"] = values["effective_samples_per_query"]
    log_dir = run_dir.loadgen(mode)
    lines, unwritten = [], dict(values)
    for line in (log_dir / mllog.FILE_NAME).read_text().splitlines():
        entry = json.loads(line.removeprefix(mllog.PREFIX))
        key = entry["key"]
        unwritten.pop(key, None)
        lines.append(json.dumps({**entry, "value": values.get(key, entry["value"])}))
    lines[1:1] = [json.dumps({**entry, "key": k, "value": v}) for k, v in unwritten.items()]
    text = "".join(f"{mllog.PREFIX}{line}\n" for line in lines)
    (log_dir / mllog.FILE_NAME).write_text(text)
    phase = msgspec.structs.replace(phase, engines=(engine(plan),))
    judged = verification.judged_again(
        phase, plan, run_dir, ("jw2",), None, lambda _: phase.accuracy or {}
    )
    return msgspec.structs.replace(judged, file_sha256=hashes.of_folder(log_dir))


def _official_plan(plan: Plan, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "benchmark": "llama3.1-8b",
        "official": True,
        "not_official_because": (),
        "preset": Preset.OFFICIAL,
        "model": Model(name="Llama-3.1-8B-Instruct", loadgen_name="llama3_1-8b", path="/m"),
        "loadgen_name": "llama3_1-8b",
        "loadgen_settings": ScenarioSettings(target_qps=1.0),
        "dataset": msgspec.structs.replace(
            plan.dataset, name="cnn_eval.json", kind=DatasetKind.CNN_EVAL, path="/d.json"
        ),
        "engine": msgspec.structs.replace(plan.engine, kind=EngineKind.VLLM),
        "device": Device.CUDA,
        "nodes": (Node(name="jw2", gpus=1),),
        **changes,
    }
    return msgspec.structs.replace(plan, **values)


def _with_gpu(env: Environment) -> Environment:
    return msgspec.structs.replace(
        env,
        cpu_model="AMD EPYC 7313",
        num_sockets=2,
        num_cores=32,
        memory_gib=251.4,
        gpus=(Gpu(name="NVIDIA A30", uuid="GPU-1", memory_mib=24576),),
        gpu_driver="550.54.15",
        packages={"vllm": "0.32.0", "torch": "2.13.0"},
        git=GIT and msgspec.structs.replace(GIT, dirty=False),
    )
