"""The GPUs in one node's preflight."""

from __future__ import annotations

import importlib.util
import os
import runpy
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sut.machine import cuda
from sut.machine.cuda import Cuda, CudaError
from sut.plan.benchmark import EngineKind
from sut.plan.fit import OVERRIDE, utilization
from sut.plan.plan import Part, Plan
from sut.results.record import PreflightCheck


def checks(plan: Plan, parts: Sequence[Part], warm: Collection[int]) -> Iterator[PreflightCheck]:
    """The checks of the GPUs that the parts use. ``warm`` are the sessions of this run's engines
    that an earlier run has started."""
    used = sorted({gpu for part in parts for gpu in part.gpus})
    try:
        found = cuda.probe()
    except CudaError as error:
        text = f"{error}. A run for GPUs never falls back to the CPU"
        yield PreflightCheck("gpus", ok=False, text=text)
        return
    names = sorted({gpu.name for gpu in found.gpus})
    text = f"{len(found.gpus)} visible ({', '.join(names)}), {len(used)} used"
    missing = [gpu for gpu in used if gpu >= len(found.gpus)]
    if missing:
        text += "; the job has too few. Check the site's gres"
    yield PreflightCheck("gpus", not missing, text, measured=len(found.gpus), unit="GPUs")
    yield driver(found, torch_cuda() if plan.engine.kind is EngineKind.VLLM else None)
    of_run = [found.gpus[gpu] for gpu in used if gpu not in missing]
    share = utilization(plan.engine.extra_args)
    for each in of_run:
        yield free_gpu(each, share, warm)
    yield from _memory(plan, of_run, share)


def _memory(plan: Plan, gpus: Sequence[cuda.Gpu], share: float) -> Iterator[PreflightCheck]:
    """Whether the model fits the smallest of these GPUs: the plan may not know their memory."""
    sizes = [gpu.memory_mib / 1024 for gpu in gpus if gpu.memory_mib is not None]
    if plan.fit is None or not plan.fit.gib or not sizes:
        return
    ok = plan.fit.gib <= share * min(sizes)
    text = f"the model needs {plan.fit.gib:.1f} GiB per GPU; vLLM uses {share * min(sizes):.1f} of "
    text += f"{min(sizes):.1f} GiB"
    text += "" if ok else f". Use more GPUs for a replica, or override this estimate: {OVERRIDE}"
    measured = round(min(sizes), 1)
    yield PreflightCheck("gpu_memory", ok, text, measured=measured, unit="GiB")


def driver(found: Cuda, built_for: tuple[int, int] | str | None) -> PreflightCheck:
    which = found.driver or "of unknown version"
    text = f"driver {which} runs CUDA up to {found.version[0]}.{found.version[1]}"
    if isinstance(built_for, str):
        return PreflightCheck("driver", ok=False, text=f"{text}; {built_for}")
    if built_for is None:
        return PreflightCheck("driver", ok=True, text=text)
    # Within a major version an older driver works.
    ok = found.version[0] >= built_for[0]
    text += f"; torch is built for {built_for[0]}.{built_for[1]}"
    if not ok:
        text += f". Update the driver, or use an image of CUDA {found.version[0]}"
    return PreflightCheck("driver", ok=ok, text=text)


def torch_cuda() -> tuple[int, int] | str:
    """The CUDA version that torch is built for, or why it is unknown. Reads torch's version file:
    importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    version = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    if not version.get("cuda"):
        return f"torch {version['__version__']} is built for the CPU. Use the CUDA image"
    major, minor = str(version["cuda"]).split(".")[:2]
    return int(major), int(minor)


def free_gpu(gpu: cuda.Gpu, share: float, warm: Collection[int]) -> PreflightCheck:
    """What NVML refuses to report of a GPU is named, and does not fail the check."""
    size = "of unknown size" if gpu.memory_mib is None else f"{gpu.memory_mib:,} MiB"
    text = f"{gpu.uuid}: {gpu.free_mib:,} of {size} free" if gpu.free_mib is not None else ""
    text = text or f"{gpu.uuid}: memory {size}; free memory not checked"
    strangers = [pid for pid in gpu.pids or () if _session(pid) not in warm]
    needed_mib = share * (gpu.memory_mib or 0)
    may_be_ours = gpu.pids is None and bool(warm)
    enough = gpu.free_mib is None or gpu.free_mib >= needed_mib or may_be_ours
    if strangers:
        text += f"; other processes compute on it: {', '.join(map(str, strangers))}"
    elif gpu.pids:
        text += "; the run's warm engines have the rest"
    elif not enough:
        text += (
            f"; vLLM takes {needed_mib:,.0f}. Find what else uses it: run nvidia-smi on the host"
        )
    if gpu.pids is None:
        text += "; other processes not checked"
    if gpu.missing:
        text += f" ({'; '.join(gpu.missing)})"
    ok = not strangers and (enough or bool(gpu.pids))
    return PreflightCheck("gpu_free", ok, text, measured=gpu.free_mib, unit="MiB")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
