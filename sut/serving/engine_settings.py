"""What decides an engine process: engines of an earlier run may serve a run with equal settings.

The load, LoadGen's settings and the requests are no part of it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sut.cluster.allocation import Allocation
from sut.machine import checkout, environment
from sut.plan.plan import Plan
from sut.plan.site import Device
from sut.serving.process import Address, Launch, command

ID_LENGTH = 12
IGNORED = "SLURM_"  # variables of a job step; all others of an engine count

Settings = Mapping[str, str]


def of_run(
    plan: Plan, host: str, model_path: Path | None, model_sha256: str | None, here: Allocation
) -> Settings:
    """The settings of a run's engines on this machine, by names for people. Values of environment
    variables are hashed."""
    found = {
        "model": model_sha256 or "",
        "image": here.image_sha256 or "",
        "job": here.job_id,
        "host": host,
        "device": plan.device,
        "usable cores": _ranges(os.sched_getaffinity(0)),
        "working folder": str(Path.cwd()),
        "python": f"{sys.executable} {sys.version}",
        "packages": str(sorted(environment.versions(environment.PACKAGES).items())),
        "source of sut": f"{checkout.PACKAGE} {checkout.source_sha256()}",
    }
    for replica in plan.replicas:
        for part in range(len(replica.parts)):
            launch = Launch(
                replica=replica.index,
                part=part,
                handshake=Address(host, 0),
                host=host,
                kept=True,
            )
            wanted = command(plan, launch, model_path)
            name = f"replica {replica.index}" + (f", part {part}" if part else "")
            found[f"{name}: command"] = shlex.join(wanted.argv)
            for variable, value in wanted.env.items():
                if not variable.startswith(IGNORED):
                    found[f"{name}: {variable}"] = hashlib.sha256(value.encode()).hexdigest()
    return found


def id_of(settings: Settings) -> str:
    """The keeper's id for these settings."""
    encoded = msgspec.json.encode(settings, order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:ID_LENGTH]


def differences(before: Settings, after: Settings) -> list[str]:
    """The names of the settings that differ."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def resources(plan: Plan) -> tuple[str, ...]:
    """The cores or GPUs that the engines of this machine use, each as text; of a replica without
    cores of its own, all that the run may use."""
    parts = [part for replica in plan.replicas for part in replica.parts if part.node == 0]
    if plan.device is Device.CUDA:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = {gpu for part in parts for gpu in part.gpus}
        return tuple(
            sorted(f"gpu {visible[g] if g < len(visible) and visible[g] else g}" for g in gpus)
        )
    cores = {core for part in parts for core in part.cpus or os.sched_getaffinity(0)}
    return tuple(f"core {core}" for core in sorted(cores))


def _ranges(cores: set[int]) -> str:
    return ",".join(map(str, sorted(cores)))
