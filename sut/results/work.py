"""The work of each replica and each node in a phase, from the run's files.

A replica on several nodes belongs to all of them together, ``jw2+jw3``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sut.plan.plan import Plan
from sut.results.progress import Line, Reader
from sut.results.sample_log import SampleLog
from sut.values import Struct

if TYPE_CHECKING:
    from sut import _core


class Quantiles(Struct, frozen=True, kw_only=True):
    """Milliseconds, exact, by the dispatcher's clock."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


class Shortcuts(Struct, frozen=True, kw_only=True):
    """What an engine reported of work that it did not do, as in :mod:`sut._core`."""

    num_prefills: int = 0
    num_stats: int = 0
    cached_tokens: int = 0
    cache_hits: int = 0
    draft_tokens: int = 0


class ReplicaWork(Struct, frozen=True, kw_only=True):
    """One replica in a phase. ``node`` is that of its engine core, ``nodes`` are those of all its
    ranks; ``share`` is its part of all output tokens, 0 to 1; ``kv_cache_usage_max`` is the
    maximum in ``progress.jsonl``, 0 to 1."""

    index: int
    node: str
    nodes: tuple[str, ...] = ()
    samples: int
    prompt_tokens: int
    output_tokens: int
    busy_s: float
    share: float
    shortcuts: Shortcuts = Shortcuts()
    kv_cache_usage_max: float | None = None

    @property
    def group(self) -> str:
        return "+".join(dict.fromkeys(self.nodes)) or self.node


class NodeWork(Struct, frozen=True, kw_only=True):
    """The replicas of one node, or of one group of nodes, in a phase.

    ``tokens_per_s`` is output tokens over the time from the first sample issued to the last one
    completed, the same for every node, so that the nodes of a phase add up. Latencies are those of
    completed samples.
    """

    node: str
    replicas: int
    samples: int
    prompt_tokens: int
    output_tokens: int
    tokens_per_s: float | None
    ttft_ms: Quantiles | None
    tpot_ms: Quantiles | None
    kv_cache_usage_max: float | None = None


def of_replicas(
    plan: Plan, stats: _core.Stats, node_names: Sequence[str], lines: Sequence[Line]
) -> tuple[ReplicaWork, ...]:
    """The work of each replica. ``node_names`` are those of the plan's nodes, in its order."""
    nodes = [tuple(node_names[part.node] for part in replica.parts) for replica in plan.replicas]
    total = stats.output_tokens or 1
    return tuple(
        ReplicaWork(
            index=replica.index,
            node=nodes[replica.index][0],
            nodes=nodes[replica.index],
            samples=replica.completed,
            prompt_tokens=replica.prompt_tokens,
            output_tokens=replica.output_tokens,
            busy_s=round(replica.busy_ns / 1e9, 3),
            share=round(replica.output_tokens / total, 4),
            shortcuts=_shortcuts(replica.shortcuts),
            kv_cache_usage_max=_kv_cache_usage_max(lines, replica.index),
        )
        for replica in stats.replicas
    )


def _shortcuts(found: _core.Shortcuts) -> Shortcuts:
    return Shortcuts(
        num_prefills=found.num_prefills,
        num_stats=found.num_stats,
        cached_tokens=found.cached_tokens,
        cache_hits=found.cache_hits,
        draft_tokens=found.draft_tokens,
    )


def of_nodes(replicas: Sequence[ReplicaWork], samples: SampleLog) -> tuple[NodeWork, ...]:
    group_of = {replica.index: replica.group for replica in replicas}
    rows: dict[str, list[int]] = {replica.group: [] for replica in replicas}
    for row, replica in enumerate(samples.replica):
        rows[group_of[replica]].append(row)
    span_s = samples.span_s()
    return tuple(
        _of_node(node, [r for r in replicas if r.group == node], samples, rows[node], span_s)
        for node in rows
    )


def _of_node(
    node: str,
    replicas: Sequence[ReplicaWork],
    samples: SampleLog,
    rows: Sequence[int],
    span_s: float | None,
) -> NodeWork:
    output_tokens = sum(samples.output_tokens[row] for row in rows)
    usage = [r.kv_cache_usage_max for r in replicas if r.kv_cache_usage_max is not None]
    return NodeWork(
        node=node,
        replicas=len(replicas),
        samples=len(rows),
        prompt_tokens=sum(samples.prompt_tokens[row] for row in rows),
        output_tokens=output_tokens,
        tokens_per_s=round(output_tokens / span_s, 3) if span_s else None,
        ttft_ms=quantiles(samples.ttft_ms(row) for row in rows),
        tpot_ms=quantiles(tpot for row in rows if (tpot := samples.tpot_ms(row)) is not None),
        kv_cache_usage_max=max(usage, default=None),
    )


def quantiles(values: Iterable[float]) -> Quantiles | None:
    """By LoadGen's rule: the value at index ``n * fraction`` of the sorted values."""
    ordered = sorted(values)
    if not ordered:
        return None

    def at(fraction: float) -> float:
        return round(ordered[min(len(ordered) - 1, math.floor(len(ordered) * fraction))], 6)

    return Quantiles(p50=at(0.5), p90=at(0.9), p99=at(0.99), p99_9=at(0.999), max=at(1))


def quantiles_of_ns(ns: Mapping[str, int]) -> Quantiles | None:
    """The dispatcher's own quantiles, named e.g. ``p99.9``."""
    ms = {name.replace(".", "_"): value / 1e6 for name, value in ns.items()}
    return Quantiles(**ms) if ms else None


def _kv_cache_usage_max(lines: Iterable[Line], replica: int) -> float | None:
    seen = (r.kv_cache_usage for line in lines for r in line.replicas if r.index == replica)
    return max(seen, default=None)


def lines_of(path: Path, phase: str) -> list[Line]:
    """The lines of a phase in ``progress.jsonl``, of the last attempt that ran it; empty without a
    file."""
    attempts: list[list[Line]] = [[]]
    for line in Reader(path).read():
        if line.pid is not None:
            attempts.append([])
        if line.phase == phase:
            attempts[-1].append(line)
    return next((lines for lines in reversed(attempts) if lines), [])
