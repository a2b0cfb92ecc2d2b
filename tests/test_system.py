"""A system's description: measured fields first, then those of its site; the rest is missing."""

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


def test_needs_no_accelerator_fields_on_cpus() -> None:
    fields = system.measured(ON_CPUS, machine())
    assert fields["accelerators_per_node"] == "0"
    for name in ("model_name", "memory_capacity", "memory_configuration", "host_interconnect"):
        assert fields[f"accelerator_{name}"] == "N/A"
    assert not any(name.startswith("accelerator") for name in missing(ON_CPUS, machine()))


def test_counts_the_accelerators_that_a_run_used() -> None:
    fields = system.measured(ON_GPUS, machine(gpus=A30S))
    assert (fields["number_of_nodes"], fields["accelerators_per_node"]) == (2, "4")
    assert fields["accelerator_model_name"] == "NVIDIA A30"
    assert fields["accelerator_memory_capacity"] == "24 GiB"
    needed = missing(ON_GPUS, machine(gpus=A30S))
    assert "accelerator_interconnect" in needed and "accelerator_model_name" not in needed


def test_takes_unmeasured_fields_from_the_site() -> None:
    unmeasured = machine(num_sockets=None, num_cores=None, gpus=())
    needed = missing(ON_GPUS, unmeasured)
    for name in ("host_processors_per_node", "host_processor_core_count", "accelerator_model_name"):
        assert name in needed
    given = {name: "4" for name in needed if name != "status"}
    assert missing(ON_GPUS, unmeasured, status="rdi", **given) == []
    fields = system.describe(SystemDescription(host_processors_per_node="4"), ON_GPUS, unmeasured)
    assert fields["host_processors_per_node"] == "4"


def test_measured_fields_take_precedence() -> None:
    given = SystemDescription(host_processor_model_name="Xeon", host_processors_per_node="2")
    assert system.describe(given, ON_CPUS, machine())["host_processor_model_name"] == "EPYC"
    (line,) = system.contradictions(given, ON_CPUS, machine())
    assert line.startswith("system.host_processor_model_name is 'Xeon', but 'EPYC' was measured")


def test_has_only_mlcommons_names() -> None:
    fields = msgspec.to_builtins(SystemDescription(accelerator_on_chip_memories="L2: 24 MB"))
    assert fields["accelerator_on-chip_memories"] == "L2: 24 MB"
    assert fields.keys() <= set(system.FIELDS)
    assert len(system.FIELDS) == 35
