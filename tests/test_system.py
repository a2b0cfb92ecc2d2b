"""A system is described by what was measured first, then by what its site says; the rest is asked
for by name."""

from __future__ import annotations

from typing import Any

import msgspec
from records import PLAN

from sut.machine import environment
from sut.machine.environment import Environment, Gpu
from sut.plan.plan import Node, Plan
from sut.plan.site import Device, SystemDescription
from sut.submission import system

ON_CPUS = PLAN
ON_GPUS = msgspec.structs.replace(PLAN, device=Device.CUDA, nodes=(Node(gpus=4), Node(gpus=4)))
A30S = tuple(Gpu(name="NVIDIA A30", uuid=f"GPU-{i}", memory_mib=24576) for i in range(8))


def machine(**changes: Any) -> Environment:
    known = {"cpu_model": "EPYC", "num_sockets": 2, "num_cores": 64, "memory_gib": 503.7}
    return msgspec.structs.replace(environment.collect(), **{**known, **changes})


def missing(plan: Plan, env: Environment, **given: Any) -> list[str]:
    return system.missing(system.describe(SystemDescription(**given), plan, env))


def test_a_machine_without_accelerators_needs_none_described() -> None:
    told = system.measured(ON_CPUS, machine())
    assert told["accelerators_per_node"] == "0"
    for name in ("model_name", "memory_capacity", "memory_configuration", "host_interconnect"):
        assert told[f"accelerator_{name}"] == "N/A"
    assert not any(name.startswith("accelerator") for name in missing(ON_CPUS, machine()))


def test_accelerators_are_those_a_run_used_of_each_node() -> None:
    told = system.measured(ON_GPUS, machine(gpus=A30S))
    assert (told["number_of_nodes"], told["accelerators_per_node"]) == (2, "4")
    assert told["accelerator_model_name"] == "NVIDIA A30"
    assert told["accelerator_memory_capacity"] == "24 GiB"
    asked = missing(ON_GPUS, machine(gpus=A30S))
    assert "accelerator_interconnect" in asked and "accelerator_model_name" not in asked


def test_what_a_machine_does_not_tell_is_asked_for_and_taken_from_the_site() -> None:
    silent = machine(num_sockets=None, num_cores=None, gpus=())
    asked = missing(ON_GPUS, silent)
    for name in ("host_processors_per_node", "host_processor_core_count", "accelerator_model_name"):
        assert name in asked
    given = {name: "4" for name in asked if name != "status"}
    assert missing(ON_GPUS, silent, status="rdi", **given) == []
    told = system.describe(SystemDescription(host_processors_per_node="4"), ON_GPUS, silent)
    assert told["host_processors_per_node"] == "4"


def test_what_was_measured_is_not_overruled() -> None:
    given = SystemDescription(host_processor_model_name="Xeon", host_processors_per_node="2")
    assert system.describe(given, ON_CPUS, machine())["host_processor_model_name"] == "EPYC"
    (line,) = system.contradictions(given, ON_CPUS, machine())
    assert line.startswith("system.host_processor_model_name says 'Xeon' and 'EPYC' was measured")


def test_a_description_has_mlcommons_names_only() -> None:
    told = msgspec.to_builtins(SystemDescription(accelerator_on_chip_memories="L2: 24 MB"))
    assert told["accelerator_on-chip_memories"] == "L2: 24 MB"
    assert told.keys() <= set(system.FIELDS)
    assert len(system.FIELDS) == 35
