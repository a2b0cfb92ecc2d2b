"""The commands for the first hour on a GPU node, of docs/gpu.md: ``python -m sut.doctor --gpu``.

They only read. Each is run in a process of its own: a driver that hangs must not hang the rest.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from sut.serving import vllm_layouts
from sut.units import quantity
from sut.values import Struct

COMMAND_S = 120  # importing torch from a cold file system takes most of a minute
_TORCH = "import torch; print(torch.version.cuda, torch.cuda.device_count())"
_VLLM = "from sut.machine.environment import VLLM, versions; print(*versions(VLLM).values())"
_METERS = (
    *("energy_j", "power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c"),
    *("utilization", "memory_used_mib", "slowed_by_power", "slowed_by_heat"),
)

Judged = tuple[bool | None, str]


class Step(Struct, frozen=True, kw_only=True):
    """One command, as it is typed."""

    command: str
    judge: Callable[[str], Judged]  # of its output; None: nothing to judge


class Found(Struct, frozen=True, kw_only=True):
    """``ok`` is None for a command that was not run, or that has no right answer."""

    command: str
    ok: bool | None
    text: str


def run(image: str) -> Iterator[Found]:
    """Run each command that a program can run. ``image`` is the site's, empty for none."""
    for step in STEPS:
        if IMAGE in step.command and not image:
            yield Found(command=step.command, ok=None, text="no container: give --site")
            continue
        words = shlex.split(step.command.replace(IMAGE, shlex.quote(image)))
        yield _run(step, [sys.executable if word == "python" else word for word in words])


def _run(step: Step, words: Sequence[str]) -> Found:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_S)
    except OSError as error:
        return Found(command=step.command, ok=False, text=f"{words[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Found(command=step.command, ok=False, text=f"no answer within {COMMAND_S} s")
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        text = f"exit code {done.returncode}: {last}"
        return Found(command=step.command, ok=False, text=text)
    try:
        ok, text = step.judge(done.stdout.strip())
    except (ValueError, LookupError, TypeError):
        ok, text = False, f"unexpected output: {done.stdout.strip()[:200]}"
    return Found(command=step.command, ok=ok, text=text)


def _list(output: str) -> Judged:
    lines = output.splitlines()
    names = Counter(
        line.partition(": ")[2].partition(" (UUID")[0] for line in lines if line[:3] == "GPU"
    )
    instances = sum(line.lstrip().startswith("MIG") for line in lines)
    text = ", ".join(f"{count} {name}" for name, count in names.items())
    text += f"; {quantity(instances, 'MIG instances')}" if instances else ""
    return bool(names), text or "no GPU"


def _state(output: str) -> Judged:
    prohibited = "Prohibited" in output
    text = "; ".join(output.splitlines())
    return bool(output) and not prohibited, text or "no GPU"


def _processes(output: str) -> Judged:
    return not output, "; ".join(output.splitlines()) or "no process computes on a GPU"


def _cuda(output: str) -> Judged:
    found = json.loads(output)
    texts = []
    for gpu in found["gpus"]:
        known = ", ".join(
            f"{label} {gpu[key] if gpu[key] is not None else 'unknown'}"
            for label, key in (("MiB", "memory_mib"), ("free", "free_mib"))
        )
        texts.append("; ".join([f"{gpu['uuid']}: {known}", *gpu.get("missing", ())]))
    return bool(texts), "\n".join(texts) or "CUDA shows no GPU"


def _meters(output: str) -> Judged:
    found = json.loads(output)
    texts = []
    for gpu in found.get("gpus", ()):
        lacking = ", ".join(name for name in _METERS if name not in gpu)
        texts.append(f"GPU {gpu['index']}: {'no ' + lacking if lacking else 'every reading'}")
    texts += filter(None, [found.get("gpus_missing")])
    return (True if found.get("gpus") else None), "\n".join(texts) or "no GPU"


def _torch(output: str) -> Judged:
    version, count = output.split()
    if version == "None":
        return False, "torch is built for the CPU"
    return int(count) > 0, f"torch for CUDA {version} sees {quantity(int(count), 'GPUs')}"


def _vllm(output: str) -> Judged:
    if not output:
        return False, "vLLM is not installed for this Python"
    version = vllm_layouts.release(output)
    if vllm_layouts.is_tested(version):
        return True, output
    return None, f"{vllm_layouts.untested(version)}; the first run compares its layout"


def _topology(output: str) -> Judged:
    links = Counter(word for word in output.split() if word.startswith("NV") and word[2:].isdigit())
    pairs = ", ".join(f"{name} {count} times" for name, count in sorted(links.items()))
    return None, f"NVLink: {pairs or 'none'}"


_QUERY = "index,name,driver_version,memory.total,memory.used,compute_mode,mig.mode.current"
IMAGE = "IMAGE"
STEPS = (
    Step(command="nvidia-smi -L", judge=_list),
    Step(command=f"nvidia-smi --query-gpu={_QUERY} --format=csv,noheader", judge=_state),
    Step(
        command="nvidia-smi --query-compute-apps=pid,used_memory,gpu_uuid --format=csv,noheader",
        judge=_processes,
    ),
    Step(command="nvidia-smi topo -m", judge=_topology),
    Step(command="python -m sut.machine.cuda", judge=_cuda),
    Step(command="python -m sut.machine.meters", judge=_meters),
    Step(command=f'python -c "{_TORCH}"', judge=_torch),
    Step(command=f'python -c "{_VLLM}"', judge=_vllm),
    Step(command=f"apptainer exec --nv {IMAGE} nvidia-smi -L", judge=_list),
)
# By hand: they start engines, or need a benchmark and a site.
BY_HAND = "python -m sut.submit --config llama3.1-8b --site SITE --scenario offline --preset quick"


def by_hand(site: str) -> str:
    """The last command, with the site's name or file; "" for none given."""
    return BY_HAND.replace("SITE", shlex.quote(site or "mine.yaml"))
