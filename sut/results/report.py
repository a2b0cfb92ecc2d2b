"""The report of a run, made from its record alone: the verdict first, then what it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sut.plan import Plan, Scenario
from sut.results.measures import Measures, measure
from sut.results.record import Attempt, PhaseRecord, Record, ReplicaWork
from sut.results.rules import Check
from sut.results.units import against, number, quantity
from sut.rundir import RunDir

UNVERIFIED = "Result not verified by MLCommons Association."


def render(record: Record) -> str:
    """The whole report, in Markdown."""
    sections = [
        _heading(record),
        *(section for phase in record.phases for section in _phase(record.plan, phase)),
        _interrupted(record),
        _attempts(record),
        _timings(record),
        _environment(record),
        _provenance(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def summary(record: Record, run_dir: RunDir, log_tail: str = "") -> str:
    """What a user sees when a run ends, about ten lines.

    ``log_tail`` is the last lines of the log that tells why a run failed.
    """
    plan = record.plan
    lines = [f"{_word(record)}  {_title(plan)}"]
    if record.failure:
        lines += [f"  why       {record.failure.code}: {record.failure.message}"]
        lines += [f"            | {line}" for line in log_tail.splitlines()]
    for phase in record.phases:
        lines += _labelled("why", (_because(phase, c) for c in phase.verdict.reasons))
        lines += _figures(phase)
    if not plan.official:
        lines += _labelled("note", [f"not official: {'; '.join(plan.not_official_because)}"])
    lines += [f"            {UNVERIFIED}", f"  report    {run_dir.report}"]
    if record.failure:
        lines += [f"  next      less {_log_to_read(record, run_dir)}"]
    return "\n".join(lines)


def _heading(record: Record) -> str:
    plan = record.plan
    parts = [f"# {_word(record)}: {_title(plan)}"]
    if record.failure:
        failure = record.failure
        blamed = [f"replica {failure.replica}"] if failure.replica is not None else []
        blamed += [f"node {failure.node}"] if failure.node is not None else []
        who = f" ({', '.join(blamed)})" if blamed else ""
        ended = "was truncated" if record.status == "truncated" else "failed"
        parts.append(f"The run {ended}{who}, `{failure.code}`: {_inline(failure.message)}")
    reasons = [f"- {_because(p, reason)}" for p in record.phases for reason in p.verdict.reasons]
    if reasons:
        parts.append("Why it is INVALID:\n\n" + _inline_lines(reasons))
    if not plan.official:
        parts.append(
            "**Not official** because:\n\n"
            + _inline_lines(f"- {why}" for why in plan.not_official_because)
        )
    scenario = "Interactive" if plan.scenario is Scenario.INTERACTIVE else plan.scenario.loadgen
    whose = "MLPerf Inference" if plan.official else "LoadGen with the seeds of MLPerf Inference"
    parts.append(f"{whose} {plan.round}, {plan.benchmark}, {scenario}: unverified. {UNVERIFIED}")
    return "\n\n".join(parts)


def _phase(plan: Plan, phase: PhaseRecord) -> list[str]:
    sections = [
        f"## {phase.name.capitalize()}: {phase.verdict.verdict}",
        _table(
            ("rule", "met", "measured", "limit", ""),
            [
                (
                    f"`{check.code}`",
                    "yes" if check.met else "**no**",
                    _measured_cell(check),
                    quantity(check.limit, check.unit),
                    check.text,
                )
                for check in phase.verdict.checks
            ],
        ),
    ]
    if phase.accuracy is None:
        sections += _measured(phase)
    else:
        sections.append(_scores(plan, phase, phase.accuracy))
    sections.append(_work(phase.replicas))
    return sections


def _measured_cell(check: Check) -> str:
    if check.limit is None:
        return quantity(check.measured, check.unit)
    return against(check.measured, check.limit, check.unit)


def _measured(phase: PhaseRecord) -> list[str]:
    measures = measure(phase.loadgen)
    latencies = [
        (row.name, *(number(q) for q in row.quantiles), number(row.limit))
        for row in _latencies(phase, measures)
    ]
    speed = (
        f"{quantity(measures.tokens_per_s, 'tokens/s')}, "
        f"{quantity(measures.samples_per_s, 'samples/s')}: what was completed, over LoadGen's "
        "time from the start to the last query's completion."
    )
    return [_table(("milliseconds", "p50", "p90", "p99", "p99 limit"), latencies), speed]


def _scores(plan: Plan, phase: PhaseRecord, scores: dict[str, float]) -> str:
    reference = plan.accuracy.reference if plan.accuracy else {}
    gates = plan.accuracy.gates if plan.accuracy else {}
    rows = [
        (
            metric,
            f"{value:,.10g}",
            f"{reference[metric]:,.10g}" if metric in reference else "-",
            _gate_text(gates[metric].low, gates[metric].high) if metric in gates else "-",
        )
        for metric, value in scores.items()
    ]
    table = _table(("score", "this run", "reference", "gate"), rows)
    if phase.num_scored is None or phase.num_scored == plan.dataset.num_samples:
        return table
    scored = f"{number(phase.num_scored)} of {number(plan.dataset.num_samples)} samples"
    lowered = "; the gate on gen_len, a sum, was lowered in proportion" * ("gen_len" in scores)
    return f"{table}\n\nScored on {scored}{lowered}."


def _gate_text(low: float, high: float | None) -> str:
    return f"at least {low:,.10g}" if high is None else f"{low:,.10g} to {high:,.10g}"


def _work(replicas: Iterable[ReplicaWork]) -> str:
    return _table(
        ("replica", "node", "samples", "prompt tokens", "output tokens", "busy", "share"),
        [
            (
                str(work.index),
                ", ".join(work.nodes or (work.node,)),
                number(work.samples),
                number(work.prompt_tokens),
                number(work.output_tokens),
                quantity(work.busy_s, "s"),
                f"{work.share:.1%}",
            )
            for work in replicas
        ],
    )


def _interrupted(record: Record) -> str:
    phase = record.interrupted
    if phase is None:
        return ""
    stats = phase.dispatcher
    text = (
        f"It was cut off after {quantity(stats.elapsed_s, 's')}, with "
        f"{quantity(stats.completed, 'samples')} done of {number(stats.issued)} issued and "
        f"{number(stats.output_tokens)} tokens out. What was measured until then is no result."
    )
    latencies = [
        (name, number(q.p50), number(q.p90), number(q.p99))
        for name, q in (("TTFT", stats.ttft_ms), ("TPOT", stats.tpot_ms))
        if q is not None
    ]
    table = _table(("milliseconds (by the dispatcher)", "p50", "p90", "p99"), latencies)
    sections = [f"## {phase.name.capitalize()}: not finished", text, table]
    return "\n\n".join(section for section in [*sections, _work(phase.replicas)] if section)


def _attempts(record: Record) -> str:
    if len(record.attempts) < 2:
        return ""
    rows = [
        (
            each.job_id or "-",
            str(each.restart),
            ", ".join(each.nodes),
            each.started_utc,
            each.ended_utc or "-",
            _how_it_ended(each),
        )
        for each in record.attempts
    ]
    head = ("job", "requeue", "nodes", "began", "ended", "how")
    return (
        "## Attempts\n\nA phase that was done stayed done; one that was cut off was measured anew."
        f"\n\n{_table(head, rows)}"
    )


def _how_it_ended(attempt: Attempt) -> str:
    if attempt.failure is not None:
        return f"{attempt.status}, {attempt.failure.code}"
    return attempt.status or "without a word: killed, or its node lost power"


def _timings(record: Record) -> str:
    rows = [
        (step.name, quantity(step.start_s, "s"), quantity(step.duration_s, "s"))
        for step in record.timings
    ]
    table = _table(("step", "begins at", "takes"), rows)
    return f"## Timings\n\n{table}" if table else ""


def _environment(record: Record) -> str:
    env = record.environment
    gpus = [gpu.name for gpu in env.gpus]
    rows = [
        ("host", env.hostname),
        ("CPU", f"{_or_dash(env.cpu_model)}, {_or_dash(env.num_usable_cpus)} usable CPUs"),
        ("memory", quantity(env.memory_gib, "GiB")),
        ("GPUs", ", ".join(f"{gpus.count(name)} x {name}" for name in sorted(set(gpus))) or "none"),
        ("GPU driver", _or_dash(env.gpu_driver)),
        ("system", f"{_or_dash(env.os)}, Linux {env.kernel}"),
        ("container", _or_dash(env.container)),
        ("LoadGen", _or_dash(env.loadgen)),
        ("Python", env.python),
        ("packages", ", ".join(f"{name} {version}" for name, version in env.packages.items())),
    ]
    return "## Environment\n\n" + _table(("", ""), rows)


def _provenance(record: Record) -> str:
    plan, git = record.plan, record.environment.git
    source = "-" if git is None else f"{git.commit}{', with local changes' if git.dirty else ''}"
    rows = [
        ("run", record.run_id),
        ("created", record.created_utc),
        ("plan", f"sha256 {record.plan_digest}"),
        ("model", f"{plan.model.name}, sha256 {_or_dash(record.hashes.model)}"),
        ("data", f"{plan.dataset.name}, sha256 {_or_dash(record.hashes.data)}"),
        ("engine", f"{plan.engine.kind}, {plan.engine.dtype}, on {plan.device}"),
        ("source", source),
        ("exit code", str(record.exit_code)),
    ]
    return "## Provenance\n\n" + _table(("", ""), rows)


class _Latency(msgspec.Struct, frozen=True):
    name: str
    quantiles: tuple[float | None, float | None, float | None]  # p50, p90, p99
    limit: float | None


def _latencies(phase: PhaseRecord, measures: Measures) -> list[_Latency]:
    """TTFT, TPOT and whole latency, in ms: LoadGen's, or where it has none the dispatcher's."""
    limits = {check.code: check.limit for check in phase.verdict.checks}
    own = phase.dispatcher
    rows = []
    for name, loadgens, dispatchers in (
        ("TTFT", measures.ttft_ms, own and own.ttft_ms),
        ("TPOT", measures.tpot_ms, own and own.tpot_ms),
        ("latency", measures.latency_ms, None),
    ):
        label, quantiles = name, (loadgens.p50, loadgens.p90, loadgens.p99)
        if quantiles == (None, None, None) and dispatchers:
            label = f"{name} (by the dispatcher)"
            quantiles = (dispatchers.p50, dispatchers.p90, dispatchers.p99)
        if quantiles != (None, None, None):
            rows.append(_Latency(label, quantiles, limits.get(f"{name.lower()}_p99")))
    return rows


def _figures(phase: PhaseRecord) -> list[str]:
    """A phase in the summary: its scores, or its latencies and speed."""
    if phase.accuracy is not None:
        scores = (f"{metric} {value:,.10g}" for metric, value in phase.accuracy.items())
        return [f"  accuracy  {', '.join(scores)}"]
    measures = measure(phase.loadgen)
    lines = []
    for row in _latencies(phase, measures):
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
        f"{quantity(measures.samples_per_s, 'samples/s')}"
    )
    return [line.rstrip() for line in lines]


def _because(phase: PhaseRecord, check: Check) -> str:
    return f"{phase.name}, {check.code}: {check.text}"


def _word(record: Record) -> str:
    return record.verdict or record.status.upper()


def _title(plan: Plan) -> str:
    replicas = quantity(len(plan.replicas), "replicas")
    return f"{plan.benchmark}, {plan.scenario.value}, {plan.preset.value} preset, {replicas}"


def _log_to_read(record: Record, run_dir: RunDir) -> str:
    replica = record.failure.replica if record.failure else None
    return str(run_dir.logs if replica is None else run_dir.replica_log(replica))


def _labelled(label: str, lines: Iterable[str]) -> list[str]:
    return [f"  {label if i == 0 else '':<9} {line}" for i, line in enumerate(lines)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; nothing when there are no rows."""
    if not rows:
        return ""
    cells = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


def _inline(text: str) -> str:
    return " ".join(text.split())


def _inline_lines(lines: Iterable[str]) -> str:
    return "\n".join(_inline(line) for line in lines)


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
