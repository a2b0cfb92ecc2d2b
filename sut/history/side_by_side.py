"""Runs side by side: what each measured, what each node did, and how a distributed run scales.

A distributed run is one LoadGen over all its nodes. It is held against the runs of its nodes
alone, of which no sum is ever shown: two runs are not a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode, Plan
from sut.report import bars, words
from sut.report.bars import Bar
from sut.report.energy import per_token
from sut.report.markdown import bullets, table
from sut.report.page import Figure, Section, to_html, to_markdown
from sut.report.phases import BY_THE_DISPATCHER, node_cells, node_columns
from sut.results import messaging
from sut.results.measures import Measures, measure
from sut.results.record import PhaseRecord, Record
from sut.units import number, quantity

# What must be the same for the speeds of two runs to be compared. The load may differ.
SAME = ("benchmark", "scenario", "preset", "model", "dataset", "generation", "engine", "device")


BY_LOADGEN = "A row is one LoadGen run; TTFT and TPOT are the dispatcher's where LoadGen has none."


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is compared. ``record`` is None for one that left none (yet); ``report`` is where
    its report is from here, empty where that is not known."""

    name: str
    record: Record | None
    report: str = ""

    @property
    def phase(self) -> PhaseRecord | None:
        """Its performance phase, if it got to the end of it."""
        phases = self.record.phases if self.record else ()
        return next((phase for phase in phases if phase.name == Mode.PERFORMANCE), None)

    @property
    def word(self) -> str:
        return self.record.word if self.record else "no record"


def render(title: str, runs: Sequence[Run]) -> str:
    """The comparison in Markdown."""
    return to_markdown(_sections(title, runs))


def render_html(title: str, runs: Sequence[Run]) -> str:
    """The comparison as one self-contained HTML page."""
    all_valid = all(run.word == "VALID" for run in runs)
    return to_html(_sections(title, runs), "good" if all_valid else "bad")


def _sections(title: str, runs: Sequence[Run]) -> list[Section]:
    scenarios = list(dict.fromkeys(run.record.plan.scenario for run in runs if run.record))
    sections = [Section(title=title, text=_heading(runs))]
    for scenario in scenarios:
        of_scenario = [run for run in runs if run.record and run.record.plan.scenario is scenario]
        sections += _scenario(scenario, of_scenario)
    return sections


def _heading(runs: Sequence[Run]) -> str:
    rows = [(run.name, run.word, _folder(run)) for run in runs]
    reasons = [f"{run.name}: {why}" for run in runs for why in _why(run)]
    plans = [run.record.plan for run in runs if run.record]
    parts = [table(("run", "verdict", "folder"), rows)]
    if reasons:
        parts.append(f"Why not VALID:\n\n{bullets(reasons)}")
    parts += list(dict.fromkeys(messaging.unverified(plan) for plan in plans))
    return "\n\n".join(parts)


def _folder(run: Run) -> str:
    if run.record is None:
        return "-"
    return f"[{run.record.run_id}](<{run.report}>)" if run.report else run.record.run_id


def _why(run: Run) -> list[str]:
    if run.record is None:
        return ["it left no record: it is not over, or was never started"]
    if run.record.failure is not None:
        return [f"{run.record.failure.code}: {run.record.failure.message}"]
    return [words.because(p, check) for p in run.record.phases for check in p.verdict.reasons]


def _scenario(scenario: Scenario, runs: Sequence[Run]) -> Iterator[Section]:
    measured = [run for run in runs if run.phase is not None]
    if not measured:
        return
    name = scenario.value.capitalize()
    yield Section(
        title=f"{name}: runs",
        text=f"{_runs(measured)}\n\n{BY_LOADGEN}",
        figures=_figures(measured),
    )
    scaling = [line for run in measured for line in _scaling(run, measured)]
    if scaling:
        yield Section(title=f"{name}: scaling", text=bullets(scaling))
    rows = [
        (run.name, *node_cells(work, run.phase.telemetry))
        for run in measured
        if run.phase
        for work in run.phase.nodes
    ]
    if rows:
        yield Section(
            title=f"{name}: nodes",
            text=f"{table(('run', *node_columns()), rows)}\n\n{BY_THE_DISPATCHER}",
        )


def _runs(runs: Sequence[Run]) -> str:
    head = (
        *("run", "verdict", "target_qps", "tokens/s", "samples/s"),
        *("TTFT p50, ms", "TTFT p99, ms", "TPOT p50, ms", "TPOT p99, ms", "energy"),
    )
    rows = []
    for run in runs:
        assert run.record is not None and run.phase is not None
        m = measure(run.phase.loadgen)
        rows.append(
            (
                run.name,
                run.word,
                number(run.record.plan.loadgen_settings.target_qps),
                number(m.tokens_per_s),
                number(m.samples_per_s),
                *(number(value) for value in _latencies(run.phase, m)),
                per_token(run.phase) or "-",
            )
        )
    return table(head, rows)


def _latencies(phase: PhaseRecord, measures: Measures) -> list[float | None]:
    """TTFT and TPOT, p50 and p99: LoadGen's, or the dispatcher's where it has none."""
    own = phase.dispatcher
    pairs = ((measures.ttft_ms, own and own.ttft_ms), (measures.tpot_ms, own and own.tpot_ms))
    return [
        value
        for loadgens, dispatchers in pairs
        for chosen in [loadgens if loadgens.p99 is not None else dispatchers or loadgens]
        for value in (chosen.p50, chosen.p99)
    ]


def _scaling(run: Run, runs: Sequence[Run]) -> Iterator[str]:
    """How much of its nodes' speed alone a distributed run keeps."""
    nodes = _nodes(run)
    if len(nodes) < 2:
        return
    singles = {node: [other for other in runs if _nodes(other) == [node]] for node in nodes}
    if missing := [node for node, found in singles.items() if not found]:
        yield (
            f"{run.name}: no run of {' and '.join(missing)} alone is among these, so there is "
            "nothing to hold it against."
        )
        return
    alone = [found[-1] for found in singles.values()]
    if differing := _differing(run, alone):
        yield f"{run.name}: its runs alone differ in {', '.join(differing)}: not compared."
        return
    speed, speeds = _speed(run), [_speed(other) for other in alone]
    known = [each for each in speeds if each]
    if not speed or len(known) < len(speeds):
        yield f"{run.name}: a run has no tokens/s, so there is nothing to compare."
        return
    words_alone = ", ".join(
        f"{node} alone {quantity(each, 'tokens/s')}"
        for node, each in zip(nodes, known, strict=True)
    )
    line = (
        f"{run.name}: {quantity(speed, 'tokens/s')} measured by one LoadGen; {words_alone}. That "
        f"is {speed / (sum(known) / len(known)):.2f} times the mean of its {len(nodes)} nodes "
        f"alone, a scaling efficiency of {speed / sum(known):.1%}."
    )
    assert run.record is not None
    yield line + _of_offered_load(run.record.plan, alone) + _of_invalid([run, *alone])


def _of_offered_load(plan: Plan, alone: Sequence[Run]) -> str:
    """In Server the speed is what LoadGen asks for, as long as it is kept up with."""
    if plan.scenario not in (Scenario.SERVER, Scenario.INTERACTIVE):
        return ""
    offered = plan.loadgen_settings.target_qps or 0
    single = [r.record.plan.loadgen_settings.target_qps or 0 for r in alone if r.record]
    if not offered or not all(single):
        return ""
    return (
        f" The load offered was {offered / (sum(single) / len(single)):.2f} times theirs: the "
        "speed of Server is what was asked for while replicas keep up, so look at the latencies "
        "too."
    )


def _of_invalid(runs: Sequence[Run]) -> str:
    names = [run.name for run in runs if run.word != "VALID"]
    return f" Not VALID: {', '.join(names)}." if names else ""


def _differing(run: Run, others: Sequence[Run]) -> list[str]:
    plans = [r.record.plan for r in (run, *others) if r.record]
    return [
        name for name in SAME if any(getattr(p, name) != getattr(plans[0], name) for p in plans)
    ]


def _nodes(run: Run) -> list[str]:
    """The nodes whose replicas the run used."""
    replicas = run.phase.replicas if run.phase else ()
    return list(dict.fromkeys(n for r in replicas for n in (r.nodes or (r.node,))))


def _speed(run: Run) -> float | None:
    return measure(run.phase.loadgen).tokens_per_s if run.phase else None


def _figures(runs: Sequence[Run]) -> tuple[Figure, ...]:
    rows = [
        Bar(
            label=run.name,
            parts=tuple((work.node, work.tokens_per_s or 0.0) for work in run.phase.nodes),
        )
        for run in runs
        if run.phase
    ]
    caption = "Output tokens/s of each run, in parts by node, by the dispatcher."
    drawn = bars.figure("Throughput", caption, "tokens/s", rows)
    return (drawn,) if drawn else ()
