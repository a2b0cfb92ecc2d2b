"""The rules on engines: how they were configured, as they report it, and what they did.

MLPerf forbids to answer a query with work of another one, or with a guess that is only checked. So
no engine may have prefix caching, speculative decoding, or KV caches from elsewhere, and none may
report a cached or a drafted token. Both are needed: a setting may have an effect that its name does
not show, and an engine may report less than it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sut.plan.benchmark import Dtype, EngineKind
from sut.plan.plan import Plan
from sut.results.engine_report import EngineReport
from sut.results.judge import Verdict, with_check
from sut.results.rules import Check
from sut.results.work import ReplicaWork
from sut.units import quantity

SHOWN = 3
DTYPE = "model_config.dtype"
_DTYPES = {Dtype.HALF: "float16", Dtype.FLOAT: "float32"}
# What engine.extra_args may change in an official run: how an engine computes, not what.
_FREE = re.compile(
    r"(attention|compilation|device|kernel|logging|observability|offload|parallel|profiler|quant)"
    r"_config(\..*)?|optimization_level|performance_mode|shutdown_timeout|"
    r"cache_config\.(block_size|user_specified_block_size|cache_dtype|gpu_memory_utilization|"
    r"kv_cache_dtype_skip_layers|kv_cache_memory_bytes|num_gpu_blocks_override)|"
    r"model_config\.(quantization(_config(\..*)?)?|seed|disable_cascade_attn|enforce_eager)|"
    r"scheduler_config\.(?!scheduler_cls).*"
)
# The parts and settings that have a rule of their own.
_SPECULATION = ("speculative_config",)
_KV_TRANSFER = ("kv_transfer_config", "ec_transfer_config", "cache_config.kv_offloading_size")
_HAVE_RULES = (*_SPECULATION, *_KV_TRANSFER)
_CACHING = "cache_config.enable_prefix_caching"


def judged(
    verdict: Verdict,
    plan: Plan,
    reports: Sequence[EngineReport],
    replicas: Sequence[ReplicaWork],
) -> Verdict:
    """The verdict with the rules on the phase's engines."""
    for check in (*_of_settings(plan, reports), *_of_work(replicas)):
        verdict = with_check(verdict, check)
    if verdict.official and not_official_because(reports):
        verdict = msgspec.structs.replace(verdict, official=False)
    return verdict


def not_official_because(reports: Sequence[EngineReport]) -> tuple[str, ...]:
    """The settings that no rule knows, by name."""
    found = [reason for report in reports for reason in _unknown(report)]
    return tuple(dict.fromkeys(found))


def _unknown(report: EngineReport) -> Iterator[str]:
    if report.changed is None:
        yield "what engine.extra_args changed in the engines is unknown"
    for name, before in (report.changed or {}).items():
        if not (_FREE.fullmatch(name) or name == _CACHING or _is_in(name, _HAVE_RULES)):
            now = report.settings.get(name)
            yield f"no rule knows the engine's setting {name}: {now}, {before} by default"
    method = report.settings.get("model_config.quantization")
    if method is not None and "model_config.quantization" not in (report.changed or {}):
        yield f"the model's files are quantized ({method})"


def _of_settings(plan: Plan, reports: Sequence[EngineReport]) -> Iterator[Check]:
    caching = [f"{_CACHING}={r.settings.get(_CACHING)}" for r in reports if _caches(r)]
    yield _off("prefix_caching", "Prefix caching", caching)
    yield _off("speculative_decoding", "Speculative decoding", _set(reports, _SPECULATION))
    yield _off("kv_transfer", "Transfer or offloading of KV caches", _set(reports, _KV_TRANSFER))
    yield _as_planned(plan, reports)


def _caches(report: EngineReport) -> bool:
    return report.settings.get(_CACHING) is not False


def _set(reports: Sequence[EngineReport], names: Sequence[str]) -> list[str]:
    """The settings of these names, or below them, that are not None."""
    found = {
        f"{name}={value}": None
        for report in reports
        for name, value in report.settings.items()
        if _is_in(name, names) and value is not None
    }
    return list(found)


def _is_in(name: str, names: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{each}.") for each in names)


def _off(code: str, name: str, found: Sequence[str]) -> Check:
    if not found:
        return Check(code, True, f"{name} was off, as the engines report.")
    listed, more = ", ".join(found[:SHOWN]), len(found) - SHOWN
    listed += f" and {more} more" if more > 0 else ""
    text = f"{name} was on in an engine ({listed}): MLPerf forbids it."
    return Check(code, False, text, remedy="Remove what sets it from engine.extra_args.")


def _as_planned(plan: Plan, reports: Sequence[EngineReport]) -> Check:
    wanted = planned(plan)
    found = {
        f"{name} is {report.settings.get(name)}, not {value}": None
        for report in reports
        for name, value in wanted.items()
        if report.settings.get(name) != value
    }
    dtypes = sorted({str(report.settings.get(DTYPE)) for report in reports})
    if len(dtypes) > 1:  # of fastest, on unlike machines
        found[f"{DTYPE} is {' and '.join(dtypes)}: it must be one"] = None
    if not found:
        return Check("engine_settings", True, "The engines report the plan's settings.")
    text = f"An engine reports other settings than the plan's: {', '.join(found)}."
    return Check("engine_settings", False, text, remedy="Set the engine's keys in the plan.")


def planned(plan: Plan) -> dict[str, Any]:
    """The settings that a plan decides, by vLLM's names."""
    engine = plan.engine
    settings: dict[str, Any] = {
        "model_config.max_model_len": engine.max_model_len,
        "scheduler_config.max_num_seqs": engine.max_num_seqs,
        "scheduler_config.max_num_batched_tokens": engine.max_num_batched_tokens,
    }
    if engine.kind is EngineKind.REPLAY:
        return settings
    settings |= {
        "model_config.enforce_eager": engine.enforce_eager,
        "parallel_config.tensor_parallel_size": engine.tensor_parallel_size,
        "parallel_config.pipeline_parallel_size": engine.pipeline_parallel_size,
        "parallel_config.data_parallel_size": 1,
    }
    if engine.dtype not in (Dtype.AUTO, Dtype.FASTEST):
        settings[DTYPE] = _DTYPES.get(engine.dtype, str(engine.dtype))
    return settings


def _of_work(replicas: Sequence[ReplicaWork]) -> Iterator[Check]:
    """What the engines report with their outputs."""
    counts = [replica.shortcuts for replica in replicas]
    cached = sum(max(each.cached_tokens, each.cache_hits) for each in counts)
    yield _none("cached_tokens", "tokens of prompts from a cache", cached)
    yield _none(
        "draft_tokens", "tokens drafted by speculation", sum(c.draft_tokens for c in counts)
    )
    silent = [
        replica.index
        for replica in replicas
        if replica.shortcuts.num_prefills < replica.samples
        or (replica.samples and not replica.shortcuts.num_stats)
    ]
    text = "The engines reported their caches and their speculation."
    if silent:
        listed = ", ".join(map(str, silent))
        text = f"No statistics of caches and speculation came from replica {listed}."
    remedy = "Remove --disable-log-stats from engine.extra_args." if silent else None
    yield Check("engine_statistics", not silent, text, len(silent), 0, "replicas", remedy)


def _none(code: str, what: str, count: int) -> Check:
    if not count:
        return Check(code, True, f"The engines used no {what}.", 0, 0, "tokens")
    text = f"The engines used {what}: {quantity(count, 'tokens')}. MLPerf forbids it."
    remedy = "Remove what enables it from engine.extra_args, or report the engine's fault."
    return Check(code, False, text, count, 0, "tokens", remedy)
