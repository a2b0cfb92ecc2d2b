"""Whether a model fits its engines: their ranks, lengths and memory. Estimated; vLLM decides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

import msgspec

from sut.errors import Errors
from sut.plan import engine_args, kv_cache
from sut.plan.benchmark import Dtype, Engine
from sut.plan.kv_cache import KvCache
from sut.plan.site import Device, Site, SiteNode
from sut.units import quantity
from sut.values import Struct

GPU_MEMORY_UTILIZATION = 0.92  # vLLM's default share of a GPU's memory
GIB = 2**30
_ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
_USUAL_SPLITS = (2, 4, 8, 16)  # of a model whose heads are unknown
OVERRIDE = "--set site.check_fit=false"
# With these options the weights in a GPU's memory are others than those of the files.
_QUANTIZES = ("--quantization", "-q")
_OTHER_WEIGHTS = (
    *_QUANTIZES,
    "--load-format",
    "--cpu-offload-gb",
    "--hf-overrides",
    "--hf-config-path",
    "--model-impl",
)


class ModelSize(Struct, frozen=True, kw_only=True):
    """What decides whether a model fits."""

    weights_gib: float | None = None  # of the files that vLLM reads; None: unknown
    weight_bytes: int = 0  # of a stored weight; 0: several kinds, or unknown
    quantized: bool = False  # the checkpoint is; its files have the size of the weights
    kv: KvCache | None = None  # None: unknown
    kv_unknown: str = ""  # why
    num_heads: int = 0  # attention heads; tensor parallelism divides them; 0: unknown
    num_kv_heads: int = 0
    num_layers: int = 0  # pipeline parallelism divides them; 0: unknown
    max_len: int | None = None  # the longest sequence; None: unknown


class Fit(Struct, frozen=True, kw_only=True):
    """How a model fits the GPUs' memory. ``not_checked`` are reasons."""

    text: str = ""  # what was compared; empty for nothing
    gib: float = 0  # that each GPU needs at least, which preflight compares; 0: nothing is known
    not_checked: tuple[str, ...] = ()


class _Need(Struct, frozen=True, kw_only=True):
    """Memory of one GPU. None: unknown, for the reason in ``unknown``."""

    weights_gib: float | None
    kv_gib: float | None
    unknown: tuple[str, ...] = ()

    @property
    def gib(self) -> float:
        """What is known of it."""
        return (self.weights_gib or 0) + (self.kv_gib or 0)


def utilization(extra_args: Sequence[str]) -> float:
    """The share of a GPU's memory that vLLM takes with these arguments."""
    with contextlib.suppress(ValueError):
        return float(engine_args.value(extra_args, "--gpu-memory-utilization") or "")
    return GPU_MEMORY_UTILIZATION


def check_model(
    size: ModelSize,
    engine: Engine,
    site: Site,
    nodes: Iterable[SiteNode],
    errors: Errors,
    advise: Callable[[], str],
) -> None:
    """Add to ``errors`` what prevents this engine from running the model on these nodes.
    ``advise`` makes the hint about the heads."""
    if not site.check_fit:
        return
    _check_split(size, engine, errors, advise)
    max_len = None if site.env.get(_ALLOW_LONG, "").lower() in ("1", "true") else size.max_len
    if max_len is not None and engine.max_model_len > max_len:
        errors.add(
            f"engine.max_model_len {engine.max_model_len} exceeds the model's {max_len} "
            "(max_position_embeddings)",
            hint=f"--set engine.max_model_len={max_len}",
        )
    node = next((node for node in nodes if not fits(size, engine, site, node)), None)
    if node is not None:
        need, usable = _need(size, engine), _usable_gib(engine, node)
        errors.add(
            f"the model does not fit on {node.name or 'a node'}: it needs "
            f"{'at least ' * bool(need.unknown)}{need.gib:.1f} GiB per GPU "
            f"({_parts(need, engine)}), and vLLM uses {usable:.1f} of {node.gpu_memory_gib:g} GiB",
            hint=f"{_more_gpus(size, engine, site, usable)}; or override this estimate: {OVERRIDE}",
        )


def suits(size: ModelSize, engine: Engine, site: Site, nodes: Iterable[SiteNode]) -> bool:
    """Whether the ranks divide the model's heads and each of these nodes has the memory."""
    divides = not size.num_heads or _divides(engine.tensor_parallel_size, size)
    return not site.check_fit or (divides and all(fits(size, engine, site, n) for n in nodes))


def fits(size: ModelSize, engine: Engine, site: Site, node: SiteNode) -> bool:
    """Whether the GPUs of a node have memory for the weights and one sequence, as far as both are
    known."""
    if site.device is not Device.CUDA or not node.gpu_memory_gib or not site.check_fit:
        return True
    return _need(size, engine).gib <= _usable_gib(engine, node)


def describe(
    size: ModelSize | None, engine: Engine, site: Site, nodes: Sequence[SiteNode]
) -> Fit | None:
    """What was compared and what was not, of a model that was not refused. None on a CPU, whose
    memory is not compared."""
    if site.device is not Device.CUDA:
        return None
    if not site.check_fit:
        return Fit(not_checked=("site.check_fit is false",))
    if size is None:
        return Fit(not_checked=("this machine cannot read the model's config.json",))
    need = _need(size, engine)
    unknown = list(need.unknown)
    parts = _parts(need, engine)
    text = f"{need.gib:.1f} GiB per GPU ({parts})" if parts else ""
    known = [node for node in nodes if node.gpu_memory_gib]
    if known and text:
        smallest = min(known, key=lambda node: node.gpu_memory_gib)
        usable = _usable_gib(engine, smallest)
        text += f"; vLLM uses {usable:.1f} of {smallest.gpu_memory_gib:g} GiB"
    if not nodes or len(known) < len(nodes):
        where = next((node.name for node in nodes if not node.gpu_memory_gib), "any")
        why = f"site {site.name} has no gpu_memory_gib for node {where}"
        unknown.append(f"the GPUs' memory: {why if site.slurm else 'preflight compares it'}")
    return Fit(text=text, gib=round(need.gib, 3), not_checked=tuple(unknown))


def _need(size: ModelSize, engine: Engine) -> _Need:
    unknown = []
    weights_gib, kv_gib = None, None
    changing = [each for each in _OTHER_WEIGHTS if engine_args.has(engine.extra_args, each)]
    if size.quantized:
        changing = [each for each in changing if each not in _QUANTIZES]
    if changing:
        unknown.append(f"the size of the weights: {changing[0]} changes it")
    elif size.weights_gib is None:
        unknown.append("the size of the weights: safetensors files are missing")
    else:
        scale = _width(engine) / size.weight_bytes if size.weight_bytes else 1
        weights_gib = size.weights_gib * scale / _ranks(engine)
    try:
        if size.kv is None:
            raise ValueError(size.kv_unknown)
        kv_gib = kv_cache.sequence_bytes(size.kv, engine) / GIB
    except ValueError as error:
        unknown.append(f"the size of the KV cache: {error}")
    return _Need(weights_gib=weights_gib, kv_gib=kv_gib, unknown=tuple(unknown))


def _parts(need: _Need, engine: Engine) -> str:
    parts = []
    if need.weights_gib is not None:
        parts.append(f"{need.weights_gib:.1f} GiB of weights")
    if need.kv_gib is not None:
        parts.append(
            f"{need.kv_gib:.1f} GiB of KV cache for a sequence of {engine.max_model_len} tokens"
        )
    return f"{' and '.join(parts)}, on {quantity(_ranks(engine), 'GPUs')}" if parts else ""


def _more_gpus(size: ModelSize, engine: Engine, site: Site, usable_gib: float) -> str:
    """How to spread the model so that it fits."""
    otherwise = "use GPUs with more memory, or a shorter engine.max_model_len"
    all_gpus = sum(node.gpus for node in site.nodes)
    for tp in divisors(size) or _USUAL_SPLITS:
        more = msgspec.structs.replace(engine, tensor_parallel_size=tp)
        if tp > engine.tensor_parallel_size and _need(size, more).gib <= usable_gib:
            gpus = quantity(_ranks(more), "GPUs")
            if site.nodes and _ranks(more) > all_gpus:
                return f"it fits on {gpus}, and site {site.name} has {all_gpus}: {otherwise}"
            return f"use {gpus}: --set engine.tensor_parallel_size={tp}"
    return otherwise


def _usable_gib(engine: Engine, node: SiteNode) -> float:
    return node.gpu_memory_gib * utilization(engine.extra_args)


def _width(engine: Engine) -> int:
    """The bytes of a weight in memory."""
    return 4 if engine.dtype in (Dtype.FLOAT, Dtype.FLOAT32) else 2


def _ranks(engine: Engine) -> int:
    return engine.tensor_parallel_size * engine.pipeline_parallel_size


def _check_split(
    size: ModelSize, engine: Engine, errors: Errors, advise: Callable[[], str]
) -> None:
    tp, pp = engine.tensor_parallel_size, engine.pipeline_parallel_size
    if size.num_heads and not _divides(tp, size):
        what = f"{size.num_heads} attention heads"
        if size.num_heads % tp == 0:
            what = f"{size.num_kv_heads} key-value heads, nor is it a multiple of them"
        errors.add(
            f"engine.tensor_parallel_size {tp} does not divide the model's {what}",
            hint=advise(),
        )
    if size.num_layers and pp > size.num_layers:
        errors.add(
            f"engine.pipeline_parallel_size {pp} exceeds the model's {size.num_layers} layers",
            hint=f"--set engine.pipeline_parallel_size={size.num_layers}",
        )


def divisors(size: ModelSize) -> list[int]:
    """The tensor parallel sizes that divide the model's heads, ascending; empty where they are
    unknown."""
    return [n for n in range(1, size.num_heads + 1) if _divides(n, size)]


def _divides(tp: int, size: ModelSize) -> bool:
    """vLLM's rule: ranks split the attention heads, and split or share the key-value heads."""
    if size.num_heads % tp != 0:
        return False
    kv_heads = size.num_kv_heads
    return not kv_heads or kv_heads % tp == 0 or tp % kv_heads == 0
