"""Whether a run fits: its model into the GPUs' memory, its time into the wall limit. Pure.

Everything here is estimated before a run starts; LoadGen and vLLM decide.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sut.errors import Errors
from sut.plan.benchmark import Engine, Scenario, ScenarioSettings
from sut.plan.plan import Mode
from sut.plan.site import Device, Site, SiteNode
from sut.units import quantity
from sut.values import Struct

GPU_MEMORY_UTILIZATION = 0.92  # vLLM's default share of a GPU's memory
GIB = 2**30
SLACK = 1.3  # wall time over predicted time

# mlperf.conf's values, for settings that a plan leaves out.
OFFICIAL_DURATION_S = 600.0
OFFLINE_MARGIN = 1.1
OFFICIAL_SINGLE_STREAM_QUERIES = 5_000
COMPLIANCE_QUERIES = 100  # TEST06's


class ModelSize(Struct, frozen=True, kw_only=True):
    """What decides whether a model fits."""

    weights_gib: float
    kv_bytes_per_token: int
    num_heads: int  # attention heads; tensor parallelism divides them
    num_layers: int  # pipeline parallelism divides them


def model_size(path: Path) -> ModelSize | None:
    """The size of a model folder in Hugging Face's layout; None if it cannot be read."""
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
    two_bytes = 2  # each value of the KV cache has 16 bits
    return ModelSize(
        weights_gib=weights / GIB,
        kv_bytes_per_token=2 * layers * kv_heads * head_dim * two_bytes,
        num_heads=heads,
        num_layers=layers,
    )


def utilization(extra_args: Sequence[str]) -> float:
    """The share of a GPU's memory that vLLM takes with these arguments."""
    words = [word for arg in extra_args for word in arg.split("=", 1)]
    with contextlib.suppress(ValueError, IndexError):
        return float(words[words.index("--gpu-memory-utilization") + 1])
    return GPU_MEMORY_UTILIZATION


def check_model(
    size: ModelSize, engine: Engine, site: Site, nodes: Iterable[SiteNode], errors: Errors
) -> None:
    """Add to ``errors`` what prevents this engine from running the model on these nodes."""
    tp, pp = engine.tensor_parallel_size, engine.pipeline_parallel_size
    if size.num_heads % tp != 0:
        fitting = [n for n in range(1, size.num_heads + 1) if size.num_heads % n == 0]
        errors.add(
            f"engine.tensor_parallel_size {tp} does not divide the model's {size.num_heads} "
            "attention heads",
            hint=f"--set engine.tensor_parallel_size=N with N in {', '.join(map(str, fitting))}",
        )
    if pp > size.num_layers:
        errors.add(
            f"engine.pipeline_parallel_size {pp} exceeds the model's {size.num_layers} layers"
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
            errors.add(
                f"the model does not fit on {node.name or 'a node'}: it needs {needed:.1f} GiB per "
                f"GPU ({size.weights_gib:.1f} GiB of weights and {kv_gib:.1f} GiB of KV cache for "
                f"a sequence of {engine.max_model_len} tokens, on {quantity(ranks, 'GPUs')}), and "
                f"vLLM uses {usable:.1f} of {node.gpu_memory_gib:g} GiB",
                hint=f"use at least {quantity(least, 'GPUs')}: "
                f"--set engine.tensor_parallel_size={1 << (least - 1).bit_length()}",
            )
            return


def phase_s(scenario: Scenario, phase: Mode, settings: ScenarioSettings, num_samples: int) -> float:
    """The predicted duration of a LoadGen test, in seconds, at the target load."""
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
        # LoadGen issues whole passes of the data set.
        queries = num_samples * math.ceil(queries / num_samples)
    if settings.max_query_count:
        queries = min(queries, settings.max_query_count)
    if settings.max_duration_ms:
        return min(queries / qps, settings.max_duration_ms / 1e3)
    return queries / qps


def time_min(site: Site, run_s: float, errors: Errors) -> int:
    """The wall limit of the job in minutes. Adds to ``errors`` if it exceeds the site's limit."""
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
    errors.add(
        f"the run needs about {needed:,} minutes ({run_s / 60:,.0f} of them measuring), but site "
        f"{site.name} has a limit of {limit:,} (site.{key}), enough for "
        f"{max(0.0, room / SLACK / 60):,.0f} minutes of measuring",
        hint=f"raise target_qps, choose a smaller --preset, or --set site.{key}={needed}",
    )
    return limit
