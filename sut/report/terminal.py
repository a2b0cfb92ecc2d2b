"""What a user sees when a run ends."""

from __future__ import annotations

from collections.abc import Iterable

from sut.plan.plan import Mode
from sut.report import words
from sut.report.latencies import latencies
from sut.results import messaging
from sut.results.measures import measure
from sut.results.record import PhaseRecord, Record
from sut.rundir import SAMPLES, RunDir
from sut.units import quantity


def summary(record: Record, run_dir: RunDir, log_tail: str = "") -> str:
    """What a user sees when a run ends, about ten lines.

    ``log_tail`` is the last lines of the log that tells why a run failed.
    """
    plan = record.plan
    lines = [f"{record.word}  {words.title(plan)}"]
    if record.failure:
        lines += [f"  why       {record.failure.code}: {record.failure.message}"]
        lines += [f"            | {line}" for line in log_tail.splitlines()]
    for phase in record.phases:
        lines += _labelled("why", (words.because(phase, c) for c in phase.verdict.reasons))
        lines += _figures(phase)
    if plan.mode is not Mode.PREFLIGHT:  # which has no result to speak of
        if not plan.official:
            lines += _labelled("note", [f"not official: {'; '.join(plan.not_official_because)}"])
        lines += [f"            {messaging.unverified(plan)}"]
    lines += [f"  report    {run_dir.report}{_plots(run_dir)}"]
    if record.failure and record.failure.replica is not None:
        lines += [f"  next      less {run_dir.replica_log(record.failure.replica)}"]
    return "\n".join(lines)


def _figures(phase: PhaseRecord) -> list[str]:
    """A phase in the summary: its scores, what it complies with, or its latencies and speed."""
    if phase.accuracy is not None:
        scores = (f"{metric} {value:,.10g}" for metric, value in phase.accuracy.items())
        return [f"  accuracy  {', '.join(scores)} (unverified)"]
    if phase.test06 is not None:
        passed = "passed" if phase.verdict.verdict == "VALID" else "not passed"
        return [f"  TEST06    {passed}, on {quantity(phase.test06.num_answers, 'answers')}"]
    measures = measure(phase.loadgen)
    lines = []
    for row in latencies(phase, measures):
        p50, p90, p99 = row.quantiles
        if row.name == "latency" and phase.loadgen.get("effective_scenario") == "SingleStream":
            # What MLPerf reports of SingleStream.
            lines.append(f"  latency   p50 {quantity(p50, 'ms')}   p90 {quantity(p90, 'ms')}")
        elif row.name != "latency":
            limit = "" if row.limit is None else f"   limit {quantity(row.limit, 'ms')}"
            name, _, whose = row.name.partition(" ")
            lines.append(
                f"  {name:<9} p50 {quantity(p50, 'ms')}   p99 {quantity(p99, 'ms')}{limit} {whose}"
            )
    lines.append(
        f"  speed     {quantity(measures.tokens_per_s, 'tokens/s')}, "
        f"{quantity(measures.samples_per_s, 'samples/s')} (unverified)"
    )
    return [line.rstrip() for line in lines]


def _plots(run_dir: RunDir) -> str:
    drawn = run_dir.report_html.is_file() and any(run_dir.loadgen_root.glob(f"*/{SAMPLES}"))
    return " (report.html has the plots)" if drawn else ""


def _labelled(label: str, lines: Iterable[str]) -> list[str]:
    return [f"  {label if i == 0 else '':<9} {line}" for i, line in enumerate(lines)]
