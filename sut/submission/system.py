"""The system under test: ``systems/<system>.json`` of a submission.

Measured fields come from a run's record. The site's file gives the others under ``system:``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sut.machine.environment import VLLM, Environment
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan
from sut.plan.site import Device, SystemDescription

Fields = dict[str, str | int]

# In the order of MLCommons' submission checker.
FIELDS = (
    "division",
    "submitter",
    "status",
    "system_name",
    "number_of_nodes",
    "host_processor_model_name",
    "host_processors_per_node",
    "host_processor_core_count",
    "host_memory_capacity",
    "host_storage_capacity",
    "host_storage_type",
    "accelerators_per_node",
    "accelerator_model_name",
    "accelerator_memory_capacity",
    "framework",
    "operating_system",
    "system_type",
    "other_software_stack",
    "host_processor_frequency",
    "host_processor_caches",
    "host_memory_configuration",
    "host_processor_interconnect",
    "host_networking",
    "host_networking_topology",
    "accelerator_frequency",
    "accelerator_host_interconnect",
    "accelerator_interconnect",
    "accelerator_interconnect_topology",
    "accelerator_memory_configuration",
    "accelerator_on-chip_memories",
    "cooling",
    "hw_notes",
    "sw_notes",
    "host_network_card_count",
    "system_type_detail",
)
# The checker accepts these empty.
OPTIONAL = frozenset(
    {
        "host_processor_frequency",
        "host_processor_caches",
        "host_processor_interconnect",
        "accelerator_frequency",
        "accelerator_interconnect_topology",
        "accelerator_on-chip_memories",
        "hw_notes",
        "sw_notes",
        "system_type_detail",
    }
)


def describe(given: SystemDescription, plan: Plan, environment: Environment) -> Fields:
    """The fields that are known, without division and submitter. Measured fields take
    precedence."""
    known: Fields = {name: value for name, value in msgspec.to_builtins(given).items() if value}
    return {**known, **measured(plan, environment)}


def missing(description: Mapping[str, str | int]) -> list[str]:
    """The required fields that are unknown."""
    needed = [name for name in FIELDS[2:] if name not in OPTIONAL]
    return [name for name in needed if name not in description]


def contradictions(given: SystemDescription, plan: Plan, environment: Environment) -> list[str]:
    """A line for each field whose value in the site's file differs from the measured one."""
    known, found = msgspec.to_builtins(given), measured(plan, environment)
    return [
        f"system.{name} is {known[name]!r}, but {str(value)!r} was measured; remove it"
        for name, value in found.items()
        if known.get(name) not in (None, "", str(value))
    ]


def measured(plan: Plan, environment: Environment) -> Fields:
    """The fields that a run measured. All nodes are assumed to equal that of ``environment``."""
    per_node = _accelerators_per_node(plan)
    fields: dict[str, str | int | None] = {
        "system_type": "edge" if plan.model.loadgen_name.endswith("-edge") else "datacenter",
        "number_of_nodes": len(plan.nodes),
        "host_processor_model_name": environment.cpu_model,
        "host_processors_per_node": environment.num_sockets,
        "host_processor_core_count": _cores_per_processor(environment),
        "host_memory_capacity": _gib(environment.memory_gib),
        "accelerators_per_node": str(per_node),  # the checker takes the number 0 for an empty field
        "framework": framework(plan, environment),
        "operating_system": environment.os,
        "other_software_stack": _software(environment),
        **(_accelerators(environment) if per_node else dict.fromkeys(_OF_ACCELERATORS, "N/A")),
    }
    return {name: value for name, value in fields.items() if value is not None}


_OF_ACCELERATORS = (
    "accelerator_model_name",
    "accelerator_memory_capacity",
    "accelerator_memory_configuration",
    "accelerator_host_interconnect",
    "accelerator_interconnect",
)


def _accelerators_per_node(plan: Plan) -> int:
    """Those that a run used; a node may have more."""
    return plan.nodes[0].gpus if plan.device is Device.CUDA else 0


def _accelerators(environment: Environment) -> dict[str, str | None]:
    if not environment.gpus:
        return {}
    first = environment.gpus[0]
    memory = None if first.memory_mib is None else _gib(first.memory_mib / 1024)
    return {"accelerator_model_name": first.name, "accelerator_memory_capacity": memory}


def _cores_per_processor(environment: Environment) -> int | None:
    if environment.num_cores is None or not environment.num_sockets:
        return None
    return environment.num_cores // environment.num_sockets


def framework(plan: Plan, environment: Environment) -> str | None:
    if plan.engine.kind is EngineKind.REPLAY:
        return "replay engine: no model"
    version = next(filter(None, map(environment.packages.get, VLLM)), None)
    return None if version is None else f"vLLM {version}"


def _software(environment: Environment) -> str:
    names = ("torch", "transformers", "mlperf-sut")
    parts = [f"{n} {environment.packages[n]}" for n in names if n in environment.packages]
    parts += [f"Python {environment.python}", f"Linux {environment.kernel}"]
    if environment.gpu_driver:
        parts.append(f"driver {environment.gpu_driver}")
    if environment.loadgen:
        parts.append(f"LoadGen {environment.loadgen}")
    return ", ".join(parts)


def _gib(gib: float | None) -> str | None:
    return None if gib is None else f"{gib:.0f} GiB"
