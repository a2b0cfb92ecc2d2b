"""Whether a run fits: its model into the GPUs' memory, its time into the wall limit. Pure.

Everything here is an estimate made before anything starts; LoadGen and vLLM have the last word.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sut.plan.benchmark import Engine, Scenario, ScenarioSettings
from sut.plan.plan import Mode
from sut.plan.site import Device, Site, SiteNode
from sut.values import Struct

GPU_MEMORY_UTILIZATION = 0.92  # vLLM's own share of a GPU
GIB = 2**30
SLACK = 1.3  # measured time over predicted time

# mlperf.conf's, for what a plan leaves to it.
OFFICIAL_DURATION_S = 600.0
OFFLINE_MARGIN = 1.1
OFFICIAL_SINGLE_STREAM_QUERIES = 5_000
COMPLIANCE_QUERIES = 100  # TEST06's


class ModelSize(Struct, frozen=True, kw_only=True):
    """What of a model decides whether it fits."""

    weights_gib: float
    kv_bytes_per_token: int
    num_heads: int  # attention heads; tensor parallelism divides them
    num_layers: int  # pipeline parallelism divides them


def model_size(path: Path) -> ModelSize | None:
    """Read from a model folder in Hugging Face's layout; None where it can't be."""
    try:
        config = json.loads((path / "config.json").read_bytes())
        weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if weights == 0:
        return None
    two_bytes = 2  # a value of the KV cache, in 16 bits
    return ModelSize(
        weights_gib=weights / GIB,
        kv_bytes_per_token=2 * layers * kv_heads * head_dim * two_bytes,
        num_heads=heads,
        num_layers=layers,
    )


def utilization(extra_args: Sequence[str]) -> float:
    """The share of a GPU's memory that vLLM will take, given what is passed to it."""
    words = [word for arg in extra_args for word in arg.split("=", 1)]
    with contextlib.suppress(ValueError, IndexError):
        return float(words[words.index("--gpu-memory-utilization") + 1])
    return GPU_MEMORY_UTILIZATION


def check_model(
    size: ModelSize, engine: Engine, site: Site, nodes: Iterable[SiteNode], mistakes: list[str]
) -> None:
    """Add to ``mistakes`` why the model can't be run as the engine says on these nodes."""
    tp, pp = engine.tensor_parallel_size, engine.pipeline_parallel_size
    if size.num_heads % tp != 0:
        fitting = [n for n in range(1, size.num_heads + 1) if size.num_heads % n == 0]
        mistakes.append(
            f"engine.tensor_parallel_size {tp} does not divide the model's {size.num_heads} "
            f"attention heads. These do: {', '.join(map(str, fitting))}"
        )
    if pp > size.num_layers:
        mistakes.append(
            f"engine.pipeline_parallel_size {pp} is more than the model's {size.num_layers} layers"
        )
    if site.device is not Device.CUDA:
        return
    kv_gib = size.kv_bytes_per_token * engine.max_model_len / GIB
    ranks = tp * pp
    for node in nodes:
        usable = node.gpu_memory_gib * utilization(engine.extra_args)
        needed = (size.weights_gib + kv_gib) / ranks
        if node.gpu_memory_gib and needed > usable:
            least = math.ceil((size.weights_gib + kv_gib) / usable)
            mistakes.append(
                f"the model needs {needed:.1f} GiB of each GPU ({size.weights_gib:.1f} GiB of "
                f"weights and {kv_gib:.1f} GiB of KV cache for one sequence of "
                f"{engine.max_model_len} tokens, over {ranks}) and vLLM uses {usable:.1f} of "
                f"{node.gpu_memory_gib:g} GiB on {node.name or 'a node'}. It would fit on {least} "
                f"GPUs: --set engine.tensor_parallel_size={_next_power_of_two(least)}"
            )
            return


def _next_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def measured_s(
    scenario: Scenario, phases: Sequence[Mode], settings: ScenarioSettings, num_samples: int
) -> float:
    """How long LoadGen's tests of a run will take, in seconds, when the load is kept up with."""
    return sum(_phase_s(scenario, phase, settings, num_samples) for phase in phases)


def _phase_s(
    scenario: Scenario, phase: Mode, settings: ScenarioSettings, num_samples: int
) -> float:
    one_at_a_time = scenario is Scenario.SINGLE_STREAM
    each_s = (settings.target_latency_ms or 0) / 1e3 if one_at_a_time else 0.0
    qps = (1 / each_s if each_s else 1.0) if one_at_a_time else settings.target_qps or 1.0
    if phase is Mode.ACCURACY:
        return (settings.accuracy_sample_count or num_samples) / qps
    if phase is Mode.COMPLIANCE:
        return COMPLIANCE_QUERIES / qps
    duration_s = OFFICIAL_DURATION_S
    if settings.min_duration_ms is not None:
        duration_s = settings.min_duration_ms / 1e3
    least: float = settings.min_query_count or (
        OFFICIAL_SINGLE_STREAM_QUERIES if one_at_a_time else num_samples
    )
    queries = max(least, duration_s * qps)
    if scenario is Scenario.OFFLINE:
        queries = max(least, OFFLINE_MARGIN * duration_s * qps)
    elif settings.min_query_count is None and not one_at_a_time:
        queries = num_samples * math.ceil(queries / num_samples)  # whole passes of the data set
    if settings.max_query_count:
        queries = min(queries, settings.max_query_count)
    if settings.max_duration_ms:
        return min(queries / qps, settings.max_duration_ms / 1e3)
    return queries / qps


def time_min(site: Site, run_s: float, mistakes: list[str]) -> int:
    """The wall limit to ask for, in minutes. Adds to ``mistakes`` when the site can't give it."""
    slurm = site.slurm
    assert slurm is not None
    needed = math.ceil(
        (SLACK * run_s + site.timeouts.warmup_s + slurm.signal_delay_s) / 60 + slurm.load_min
    )
    asked = slurm.time_min or needed
    limit = min(asked, slurm.max_time_min)
    if needed <= limit:
        return asked
    key = "slurm.max_time_min" if limit == slurm.max_time_min else "slurm.time_min"
    room = (limit - slurm.load_min) * 60 - site.timeouts.warmup_s - slurm.signal_delay_s
    fits = "nothing" if room <= 0 else f"{room / SLACK / 60:,.0f} minutes of measuring"
    mistakes.append(
        f"the run needs about {needed:,} minutes ({run_s / 60:,.0f} of measuring) and site "
        f"{site.name} gives {limit:,} ({key}). {fits.capitalize()} would fit. A higher target_qps, "
        f"another preset or --set site.{key}={needed} changes that"
    )
    return limit
