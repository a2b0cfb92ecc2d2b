"""The rules of a LoadGen test, each a check of what was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from sut.errors import InputError
from sut.plan.benchmark import Gate
from sut.plan.hostlist import compact
from sut.plan.plan import Plan
from sut.results import measures
from sut.results.early_stopping import num_over_limit, queries_needed
from sut.results.mllog import DetailLog
from sut.units import against, from_limit, number, quantity
from sut.values import Struct


class Check(Struct, frozen=True):
    """One rule. ``code`` is a stable word; ``unit`` is that of ``measured`` and ``limit``,
    None where they are unknown. For a rule that is not met, ``remedy`` is how to fix it and
    ``crossed_s`` the time at which the limit was first crossed, in seconds from the test's start;
    None where unknown."""

    code: str
    met: bool
    text: str
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    remedy: str | None = None
    crossed_s: float | None = None


def of_loadgen(log: DetailLog) -> list[Check]:
    rules = [_min_duration(log), _min_queries(log)]
    match log.scenario:
        case "Server" if log.token_latencies:
            keys = {"TTFT": measures.TTFT_KEY, "TPOT": measures.TPOT_KEY}
            limits = token_limits_ns(log).items()
            latencies = [_within(log, name, keys[name], limit_ns) for name, limit_ns in limits]
            return [*rules, *latencies, _early_stopping_server(log)]
        case "Server":
            return [*rules, _latency(log), _early_stopping_server(log)]
        case "SingleStream" | "MultiStream":
            return [*rules, _early_stopping_of_streams(log)]
        case "Offline":
            return rules
        case other:
            raise InputError(
                f"{log.path}: scenario {other} is not supported",
                hint="pass a log of Server, Offline, SingleStream or MultiStream",
            )


def beyond_loadgen(
    log: DetailLog, num_failed: int | None, replica_samples: Sequence[int]
) -> list[Check]:
    """The rules added to LoadGen's, without those whose input is unknown."""
    checks = [_loadgen_errors(log)]
    if log.contradictions:
        text = f"The log contradicts itself: {'; '.join(log.contradictions)}."
        checks.append(Check("error_flags", False, text))
    if num_failed is not None:
        text = f"{quantity(num_failed, 'samples')} failed." if num_failed else "No sample failed."
        checks.append(Check("failed_samples", num_failed == 0, text, num_failed, 0, "samples"))
    if replica_samples:
        idle = [index for index, samples in enumerate(replica_samples) if samples == 0]
        text = "Every replica completed samples."
        if idle:
            text = f"No sample was completed by replica {', '.join(map(str, idle))}."
        checks.append(Check("idle_replicas", not idle, text, len(idle), 0, "replicas"))
    return checks


def idle_nodes(plan: Plan, node_names: Sequence[str]) -> Check | None:
    """Whether every node, in the plan's order, has a replica; None for a single node.

    A node that no replica uses is billed and does nothing.
    """
    if len(plan.nodes) == 1:
        return None
    used = {part.node for replica in plan.replicas for part in replica.parts}
    idle = [name for index, name in enumerate(node_names) if index not in used]
    text, remedy = "Every node has a replica.", None
    if idle:
        text = f"No replica uses node {compact(idle)}."
        remedy = "Use fewer nodes or more replicas: --set site.num_replicas=..."
    return Check("idle_nodes", not idle, text, len(idle), 0, "nodes", remedy)


def _min_duration(log: DetailLog) -> Check:
    measured = measures.measure(log.values).duration_s
    limit = log.count("effective_min_duration_ms") / 1e3
    met = log.flag("result_min_duration_met")
    ran = "for an unknown time" if measured is None else against(measured, limit, "s")
    short = _short(measured, limit, "s")
    text = f"The test ran {ran}; at least {quantity(limit, 's')} needed{short}."
    return Check("min_duration", met, text, measured, limit, "s")


def _min_queries(log: DetailLog) -> Check:
    offline = log.scenario == "Offline"
    unit = "samples" if offline else "queries"
    issued = log.count("generated_samples_per_query" if offline else "result_query_count")
    limit = log.count("effective_min_sample_count" if offline else "effective_min_query_count")
    met = log.flag("result_min_queries_met") and issued >= limit
    short = _short(issued, limit, unit)
    text = f"The test issued {quantity(issued, unit)}; at least {number(limit)} needed{short}."
    return Check("min_queries", met, text, issued, limit, unit)


def _short(measured: float | None, limit: float, unit: str) -> str:
    if measured is None or measured >= limit:
        return ""
    short = float(f"{limit - measured:.4g}")
    return f", {against(short, limit, unit)} short"


def token_limits_ns(log: DetailLog) -> dict[str, int]:
    """The limits on TTFT and TPOT, by name; empty where the test has none."""
    if log.scenario != "Server" or not log.token_latencies:
        return {}
    names = ("TTFT", "TPOT")
    return {name: log.count(f"requested_server_{name.lower()}_latency") for name in names}


def _latency(log: DetailLog) -> Check:
    limit_ns = log.count("effective_target_latency_ns")
    latency = _within(log, "Latency", measures.LATENCY_KEY, limit_ns)
    hint = (
        " This log contains no TTFT or TPOT: an LLM benchmark needs LoadGen's own model name "
        "(llama3_1-8b, never with a dot)."
    )
    return msgspec.structs.replace(latency, text=latency.text + hint)


def _within(log: DetailLog, name: str, template: str, limit_ns: int) -> Check:
    percentile = percentile_of(log)
    measured_ns = log.number(measures.percentile_key(template, percentile))
    if measured_ns is None:
        met, measured_ms = log.flag("result_perf_constraints_met"), None
    else:
        met, measured_ms = 0 <= measured_ns <= limit_ns, measured_ns / 1e6
    label = f"p{100 * percentile:g}"
    limit_ms = limit_ns / 1e6
    was = against(measured_ms, limit_ms, "ms")
    how_far = from_limit(measured_ms, limit_ms)
    text = f"{name} {label} was {was}; the limit is {quantity(limit_ms, 'ms')}"
    text += f" ({how_far})." if how_far else "."
    return Check(f"{name.lower()}_{label}", met, text, measured_ms, limit_ms, "ms")


def percentile_of(log: DetailLog) -> float:
    percentile = log.number("effective_target_latency_percentile")
    if percentile is None or not 0 < percentile < 1:
        raise log.wrong("effective_target_latency_percentile", "between 0 and 1")
    return percentile


def _early_stopping_server(log: DetailLog) -> Check:
    issued = log.count("result_query_count")
    percentile = percentile_of(log)
    needed, asked = queries_needed(0, percentile), asked_for(log)
    if asked:
        needed = issued + asked[1]
    met = log.flag("early_stopping_met") and issued >= needed
    text = _early_stopping_text(issued, needed, percentile, asked, met)
    return Check("early_stopping", met, text, issued, needed, "queries")


def _early_stopping_text(
    issued: int, needed: int, percentile: float, asked: tuple[str, int] | None, met: bool
) -> str:
    queries, sure = quantity(issued, "queries"), f"99% sure of p{100 * percentile:g}"
    more = f"at least {number(needed - issued)} more queries are needed"
    if met:
        return f"{queries}: enough to be {sure}."
    if needed <= issued:
        return "LoadGen reports it as not met; its log gives no reason."
    if needed == queries_needed(0, percentile):
        return f"{queries}: too few to be {sure}; {more}."
    what = asked[0] if asked else "latency"
    over = num_over_limit(needed, percentile)
    some = "Queries" if over is None else f"{number(over)} of {queries}"
    return f"{some} over the {what} limit: to be {sure}, {more}, all within it."


def asked_for(log: DetailLog) -> tuple[str, int] | None:
    """The latency for which LoadGen's early stopping asks for more queries, and how many more.

    LoadGen checks TPOT first and, where that fails, does not check TTFT.
    """
    for what, key in (
        ("TPOT", "early_stopping_tpot_result"),
        ("TTFT", "early_stopping_ttft_result"),
        ("latency", "early_stopping_result"),
    ):
        if found := re.search(r"at least (\d+) more queries", str(log.values.get(key, ""))):
            return what, int(found[1])
    return None


def _early_stopping_of_streams(log: DetailLog) -> Check:
    issued = log.count("result_query_count")
    percentile = percentile_of(log)
    needed = queries_needed(1, percentile)
    met = log.flag("early_stopping_met") and issued >= needed
    text = (
        f"The test issued {quantity(issued, 'queries')}; at least {number(needed)} needed to "
        f"estimate p{100 * percentile:g}."
    )
    return Check("early_stopping", met, text, issued, needed, "queries")


def _loadgen_errors(log: DetailLog) -> Check:
    num = log.num_errors
    text = "LoadGen logged no error."
    crossed_s = None
    if num:
        text = f"LoadGen logged {quantity(num, 'errors')}"
        first = log.errors[0] if log.errors else None
        text += ", the first" if first is not None and num > 1 else ""
        if first is not None and first.time_ms is not None:
            crossed_s = first.time_ms / 1e3
            at = f"at {quantity(crossed_s, 's')} from the start of its log"
            text += f"{'' if num > 1 else ','} {at}"
        text += "." if first is None else f': "{first.message}".'
    return Check("loadgen_errors", num == 0, text, num, 0, "errors", crossed_s=crossed_s)


def gate(metric: str, score: float | None, limits: Gate, scale: float) -> Check:
    """An accuracy gate, its limits times ``scale``."""
    low, high = limits.low * scale, None if limits.high is None else limits.high * scale
    met = score is not None and score >= low and (high is None or score <= high)
    between = f"at least {low:,.10g}" + ("" if high is None else f" and at most {high:,.10g}")
    text = f"{metric} is {'not scored' if score is None else f'{score:,.10g}'}; {between} needed."
    above = high is not None and score is not None and score > high
    unit = "characters" if metric == "gen_len" else ""
    return Check(f"accuracy_{metric}", met, text, score, high if above else low, unit)


def whole_data_set(num_scored: int, num_samples: int) -> Check:
    """Gates are defined for the whole data set; a part of it may be easier."""
    text = f"{number(num_scored)} of {quantity(num_samples, 'samples')} were scored"
    met = num_scored == num_samples
    text += "." if met else "; the gates apply to the whole data set."
    return Check("whole_data_set", met, text, num_scored, num_samples, "samples")
