"""The page of a campaign: what each run and node measured, and how a distributed run scales.

A distributed run is one LoadGen over all its nodes. It is compared with the runs of its nodes
alone. The sum of two runs is never shown: it is not a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from sut.history.comparison import Run, why_not_comparable
from sut.history.figures import COST, SAMPLES, TOKEN_LATENCIES, TOKENS
from sut.plan.benchmark import Scenario
from sut.report import bars
from sut.report.bars import Bar
from sut.report.markdown import Markup, bullets, filled, inline, table
from sut.report.nodes import BY_THE_DISPATCHER, WORK_COLUMNS, energy_per_token, work_cells
from sut.report.page import Figure, Section, to_html, to_markdown
from sut.report.settings import target_qps
from sut.results import messaging
from sut.units import exact, number, quantity

# Speeds are comparable if these are the same. The load may differ.
SAME_SPEED = (
    "plan.benchmark",
    "plan.scenario",
    "plan.preset",
    "plan.model",
    "plan.dataset",
    "plan.generation",
    "plan.engine",
    "plan.device",
)
BY_LOADGEN = "Each row is one LoadGen run. TTFT and TPOT are the dispatcher's if LoadGen has none."


def render(title: str, runs: Sequence[Run]) -> str:
    return to_markdown(_sections(title, runs))


def render_html(title: str, runs: Sequence[Run]) -> str:
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
    rows = [(run.name, run.headline, _folder(run)) for run in runs]
    reasons = [f"{run.name}: {why}" for run in runs for why in run.why()]
    records = [run.record for run in runs if run.record]
    parts = [table(("run", "verdict", "folder"), rows)]
    if reasons:
        parts.append(f"Why not VALID:\n\n{bullets(reasons)}")
    labels = (messaging.unverified(r.plan, official=not r.not_official_because) for r in records)
    parts += list(dict.fromkeys(map(inline, labels)))
    return "\n\n".join(parts)


def _folder(run: Run) -> str:
    if run.record is None:
        return "-"
    name = run.record.run_id
    return Markup(f"[{inline(name)}](<{quote(run.report, safe='/ ')}>)") if run.report else name


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
        (run.name, *work_cells(work, run.phase.telemetry))
        for run in measured
        if run.phase
        for work in run.phase.nodes
    ]
    if rows:
        yield Section(
            title=f"{name}: nodes",
            text=f"{table(*filled(('run', *WORK_COLUMNS), rows))}\n\n{BY_THE_DISPATCHER}",
        )


def _runs(runs: Sequence[Run]) -> str:
    columns = [TOKENS, SAMPLES, *TOKEN_LATENCIES]
    if any(COST.read(run.known) is not None for run in runs):
        columns.append(COST)
    names = [f"{each.name}, ms" if each.unit == "ms" else each.unit for each in columns]
    rows = [
        (
            run.name,
            run.headline,
            exact(target_qps(run.known)),
            *(number(each.read(run.known)) for each in columns),
            (run.phase and energy_per_token(run.phase)) or "-",
        )
        for run in runs
    ]
    return table(*filled(("run", "verdict", "target_qps", *names, "energy"), rows))


def _scaling(run: Run, runs: Sequence[Run]) -> Iterator[str]:
    """How much of the speed of its nodes alone a distributed run reaches."""
    nodes = _nodes(run)
    if len(nodes) < 2:
        return
    singles = {node: [other for other in runs if _nodes(other) == [node]] for node in nodes}
    if missing := [node for node, found in singles.items() if not found]:
        yield f"{run.name}: no scaling efficiency without a run of {' and '.join(missing)} alone."
        return
    alone = [found[-1] for found in singles.values()]
    if why := why_not_comparable([each.known for each in (run, *alone)], SAME_SPEED):
        yield f"{run.name}: not comparable with its nodes alone: {why}."
        return
    speed, *speeds = (TOKENS.read(each.known) for each in (run, *alone))
    known = [each for each in speeds if each]
    if not speed or len(known) < len(speeds):
        yield f"{run.name}: no scaling efficiency, because a run has no tokens/s."
        return
    each_alone = ", ".join(
        f"{node} alone {quantity(each, 'tokens/s')}"
        for node, each in zip(nodes, known, strict=True)
    )
    yield (
        f"{run.name}: {quantity(speed, 'tokens/s')} measured by one LoadGen; {each_alone}. That "
        f"is {speed / (sum(known) / len(known)):.2f} times the mean of its {len(nodes)} nodes "
        f"alone, a scaling efficiency of {speed / sum(known):.1%}."
        f"{_offered_load(run, alone)}{_invalid([run, *alone])}"
    )


def _offered_load(run: Run, alone: Sequence[Run]) -> str:
    """In Server, LoadGen's target limits the speed as long as the replicas keep up."""
    if run.known.plan.scenario not in (Scenario.SERVER, Scenario.INTERACTIVE):
        return ""
    offered, *single = (target_qps(each.known) for each in (run, *alone))
    known = [each for each in single if each]
    if not offered or len(known) < len(single):
        return ""
    return (
        f" The offered load was {offered / (sum(known) / len(known)):.2f} times theirs. In "
        "Server the offered load limits the speed, so compare the latencies as well."
    )


def _invalid(runs: Sequence[Run]) -> str:
    names = [run.name for run in runs if run.word != "VALID"]
    return f" Not VALID: {', '.join(names)}." if names else ""


def _nodes(run: Run) -> list[str]:
    """The nodes whose replicas the run used."""
    replicas = run.phase.replicas if run.phase else ()
    return list(dict.fromkeys(n for r in replicas for n in (r.nodes or (r.node,))))


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
