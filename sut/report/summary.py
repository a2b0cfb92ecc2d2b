"""A run in a few lines: what a user sees when it ends, and the phrases every report shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sut import layout
from sut.errors import quoted
from sut.plan.plan import Mode, Plan
from sut.plan.site import Device
from sut.report import repeats, sweep
from sut.report.latencies import latencies
from sut.results import messaging
from sut.results.auxiliary import PLOTS, REPORT
from sut.results.diagnosis import MARK
from sut.results.measures import measure
from sut.results.phase_record import PhaseRecord
from sut.results.record import EngineOrigin, Record, Step
from sut.rundir import SAMPLES, RunDir
from sut.units import exact, number, quantity

NUM_STEPS = 3  # named with their times
SHARE = 0.01  # of the total; shorter steps are not shown
_HANG = " " * 12  # below the first line of a row
MANY_CPUS = 0.25  # from which other programs on the engines' machine matter


def title(plan: Plan) -> str:
    if plan.mode is Mode.PREFLIGHT:
        return f"preflight of {quantity(len(plan.nodes), 'nodes')} for {plan.benchmark}"
    replicas = quantity(len(plan.replicas), "replicas")
    return f"{plan.benchmark}, {plan.scenario.value}, {plan.preset.value} preset, {replicas}"


def reasons(phases: Sequence[PhaseRecord]) -> list[str]:
    return [f"{p.name}, {check.code}: {check.text}" for p in phases for check in p.verdict.reasons]


def busy(record: Record, phase: PhaseRecord) -> list[str]:
    """That other programs slowed the engines of an INVALID phase, if they can have."""
    used, cores = phase.other_cpus, record.environment.num_cpus
    on_cpu = record.plan.device is Device.CPU
    if not on_cpu or phase.verdict.verdict == "VALID" or not used or used < MANY_CPUS:
        return []
    of = f" of {quantity(cores, 'cores')}" if cores else " cores"
    return [
        f"other programs used {number(used)}{of} during {phase.name}: stop them, or offer less load"
    ]


def engines(record: Record) -> list[str]:
    """Where the engines came from, if not from this run alone, and whether they stay."""
    if record.engines is None:
        return []
    found = record.engines
    lines = [_warmth([each for each in found.replicas if each.warm]), *found.notes]
    if found.kept:
        lines.append(
            f"kept for {quantity(record.plan.keep_engine_min, 'minutes')} after the run; to stop "
            f"them: sut engines stop {found.keeper}"
        )
    if found.refused_connections:
        refused = quantity(found.refused_connections, "connections")
        lines.append(f"{refused} of other programs to the dispatcher refused")
    return [line for line in lines if line]


def _warmth(warm: Sequence[EngineOrigin]) -> str:
    """Since when the warm engines run, and what they had served; empty without any."""
    if not warm:
        return ""
    runs = quantity(max(each.earlier_runs for each in warm), "runs")
    samples = quantity(sum(each.earlier_samples for each in warm), "samples")
    since = min(each.started_utc for each in warm)
    return f"{quantity(len(warm), 'replicas')} warm: started {since}, had served {runs}, {samples}"


PER_MILLION = "per million output tokens"


class Message(NamedTuple):
    """An error's message in its parts: what failed, lines of a log or further errors, and what to
    do."""

    first: str
    log: list[str]
    hint: str

    @classmethod
    def of(cls, text: str) -> Message:
        lines: list[str] = []
        hints: list[str] = []
        for error in text.split("\nerror: "):
            what, _, hint = error.partition("\nhint: ")
            what = f"error: {what}" if lines else what
            lines += [line.removeprefix(MARK) for line in what.splitlines()]
            hints += [hint] if hint else []
        return cls(lines[0] if lines else "", lines[1:], "; ".join(dict.fromkeys(hints)))


def summary(
    record: Record, run_dir: RunDir, log_lines: Sequence[str] = (), width: int | None = None
) -> str:
    """About ten lines, for a terminal of ``width`` columns. ``log_lines`` are those of a log that
    show why a run failed."""
    plan = record.plan
    lines = [f"{record.headline}  {title(plan)}"]
    if record.failure:
        message = Message.of(record.failure.message)
        lines += [f"  why       {record.failure.code}: {message.first}"]
        lines += [f"            | {line}" for line in (*message.log, *log_lines)]
        lines += [f"  hint      {message.hint}"] if message.hint else []
    lines += _labelled("engines", engines(record))
    if record.load:
        lines += [f"  load      {record.load.text}"]
    if record.tuning:
        lines += [f"  tuning    {record.tuning.text}"]
    repeated = repeats.tests(record)
    for phase in record.phases:
        if plan.sweep:
            continue
        if phase in repeated:
            lines += [f"  test      {phase.name}: {phase.verdict.verdict}"]
        lines += _labelled("why", reasons([phase]))
        lines += _figures(phase, run_dir)
        lines += _labelled("busy", busy(record, phase))
        if phase.survivors:
            lines += [f"  degraded  {phase.survivors.text}"]
    lines += _labelled("repeats", repeats.lines(record))
    lines += _labelled("sweep", sweep.lines(record, layout.less(width, len(_HANG))))
    if plan.mode is not Mode.PREFLIGHT:  # it has no result
        if because := record.not_official_because:
            lines += _labelled("note", [f"not official: {'; '.join(because)}"])
        lines += [f"            {messaging.unverified(plan, official=not because)}"]
    # A report that the run could not draw may have been drawn since.
    failed = [e for e in record.auxiliary_failures if e.part != REPORT or not _has_plots(run_dir)]
    lines += _labelled("warning", [each.text for each in failed])
    lines += _labelled("took", _times(record.timings))
    lines += [f"  report    {run_dir.report}{_plots(record, run_dir)}"]
    if record.failure and record.failure.replica is not None:
        lines += [f"  next      less {quoted(run_dir.replica_log(record.failure.replica))}"]
    return "\n".join(layout.fold(lines, width, _HANG))


def _figures(phase: PhaseRecord, run_dir: RunDir) -> list[str]:
    """A phase's scores, its compliance, or its latencies and speed."""
    if phase.accuracy:
        scores = (f"{metric} {value:,.10g}" for metric, value in phase.accuracy.items())
        return [f"  accuracy  {', '.join(scores)} (unverified)"]
    if phase.accuracy is not None:
        command = f"python -m sut.score {quoted(run_dir)} --inference DIR --references FILE"
        return [f"  accuracy  not scored yet: {command}"]
    if phase.test06 is not None:
        passed = "passed" if phase.verdict.verdict == "VALID" else "not passed"
        return [f"  TEST06    {passed}, on {quantity(phase.test06.num_answers, 'answers')}"]
    if phase.test09 is not None:
        passed = "passed" if phase.verdict.verdict == "VALID" else "not passed"
        mean = quantity(phase.test09.mean, "tokens")
        return [f"  TEST09    {passed}: {mean} in a mean answer"]
    measures = measure(phase.loadgen)
    lines = []
    for row in latencies(phase, measures):
        p50, p90, p99 = row.quantiles
        if row.name == "latency" and phase.loadgen.get("effective_scenario") == "SingleStream":
            # MLPerf's metric for SingleStream.
            lines.append(f"  latency   {_quantile('p50', p50)}   {_quantile('p90', p90)}")
        elif row.name != "latency":
            limit = "" if row.limit is None else f"   {_quantile('limit', row.limit)}"
            name, _, clock = row.name.partition(" ")
            found = f"{_quantile('p50', p50)}   {_quantile('p99', p99)}"
            lines.append(f"  {name:<9} {found}{limit} {clock}")
    if phase.hopeless is not None and phase.hopeless.ended:
        return [line.rstrip() for line in lines]  # LoadGen gave no rates
    qps = measures.target_qps
    at_load = "" if qps is None else f" at target_qps {exact(qps)}"
    lines.append(
        f"  speed     {quantity(measures.tokens_per_s, 'tokens/s')}, "
        f"{quantity(measures.samples_per_s, 'samples/s')}{at_load} (unverified)"
    )
    if phase.cost_per_million_tokens is not None:
        lines.append(f"  cost      {number(phase.cost_per_million_tokens)} {PER_MILLION}")
    return [line.rstrip() for line in lines]


def _quantile(name: str, value: float | None) -> str:
    return layout.together(f"{name} {quantity(value, 'ms')}")


def _times(steps: Sequence[Step]) -> list[str]:
    """The total, and the steps that took the most of it."""
    if not steps:
        return []
    first, *others = sorted(steps, key=lambda step: -step.duration_s)[:NUM_STEPS]
    longest = [first, *(each for each in others if each.duration_s >= SHARE * total_s(steps))]
    each = ", ".join(f"{step.name} {quantity(step.duration_s, 's')}" for step in longest)
    return [f"{quantity(total_s(steps), 's')}, mostly {each}"]


def total_s(steps: Sequence[Step]) -> float:
    """From the start of the process to the end of the last step."""
    return max((step.start_s + step.duration_s for step in steps), default=0.0)


def _plots(record: Record, run_dir: RunDir) -> str:
    drawn = _has_plots(run_dir) and all(each.part != PLOTS for each in record.auxiliary_failures)
    return " (report.html has the plots)" if drawn else ""


def _has_plots(run_dir: RunDir) -> bool:
    return run_dir.report_html.is_file() and any(run_dir.loadgen_root.glob(f"*/{SAMPLES}"))


def _labelled(label: str, lines: Iterable[str]) -> list[str]:
    return [f"  {label if i == 0 else '':<9} {line}" for i, line in enumerate(lines)]
