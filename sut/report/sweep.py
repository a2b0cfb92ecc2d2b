"""The performance tests of a run with ``--sweep``: latencies, throughput and goodput against the
load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sut import layout
from sut.plan.plan import Mode
from sut.report import repeats
from sut.report.latencies import latencies
from sut.report.markdown import table
from sut.report.nodes import energy_per_token
from sut.report.page import Figure, Section
from sut.results import load
from sut.results.measures import measure
from sut.results.phase_record import PhaseRecord
from sut.results.record import Record
from sut.units import exact, number, quantity

BAR = 20  # characters, of a latency that is at its limit
NO_WIDTH = "± ?"
MORE = "+"  # ends a bar that is longer than the limit's


class AtLoad(NamedTuple):
    """The finished tests at one load, in queries/s."""

    target_qps: float
    phases: list[PhaseRecord]

    @property
    def verdict(self) -> str:
        """VALID if each test is."""
        found = [phase.verdict.verdict for phase in self.phases]
        return "VALID" if set(found) == {"VALID"} else "INVALID"

    def figures(self) -> dict[str, repeats.Repeated]:
        """Each figure that all tests have, by its name."""
        return {each.name: each for each in repeats.figures(self.phases)}

    def limits_ms(self) -> dict[str, float]:
        """By TTFT and TPOT, as LoadGen applied them."""
        rows = latencies(self.phases[0], measure(self.phases[0].loadgen))
        return {row.name.split()[0]: row.limit for row in rows if row.limit is not None}


def loads(record: Record) -> list[AtLoad]:
    """The loads of a sweep with finished tests, lowest first; empty for another run."""
    by_load: dict[float, list[PhaseRecord]] = {}
    for phase in record.phases if record.plan.sweep else ():
        qps = record.plan.chosen_qps(phase.test)
        if qps is not None and phase.test.mode is Mode.PERFORMANCE:
            by_load.setdefault(qps, []).append(phase)
    return [AtLoad(qps, by_load[qps]) for qps in sorted(by_load)]


def highest_valid(found: Sequence[AtLoad]) -> AtLoad | None:
    """The highest load such that it and each lower one are VALID."""
    best = None
    for each in found:
        if each.verdict != "VALID":
            break
        best = each
    return best


def lines(record: Record, width: int | None = None) -> list[str]:
    """For a terminal: a row a load, with a bar of the latency that is nearest to its limit."""
    found = loads(record)
    if not found:
        return []
    head = ("queries/s", "", "tokens/s", "goodput", "TTFT p99, ms", "TPOT p99, ms", "of its limit")
    rows = [(*_row(each), _bar(each)) for each in found]
    return [_in_words(found), *layout.columns(head, rows, range(len(head) - 1), width)]


def _row(each: AtLoad) -> tuple[str, ...]:
    figures = each.figures()
    names = ("throughput", "goodput", "TTFT p99", "TPOT p99")
    means = (number(figures[name].mean) if name in figures else "-" for name in names)
    return (exact(each.target_qps), each.verdict, *means)


def _share(each: AtLoad) -> tuple[str, float] | None:
    """The latency that is nearest to its limit or furthest over it, as a share of it."""
    figures, limits = each.figures(), each.limits_ms()
    shares = {
        name: figures[f"{name} p99"].mean / limit
        for name, limit in limits.items()
        if f"{name} p99" in figures and limit > 0
    }
    name = max(shares, key=shares.__getitem__, default="")
    return (name, shares[name]) if name else None


def _bar(each: AtLoad) -> str:
    found = _share(each)
    if found is None:
        return ""
    name, share = found
    bar = "#" * max(1, round(min(share, 1.0) * BAR)) + (MORE if share > 1 else "")
    codes = dict.fromkeys(check.code for phase in each.phases for check in phase.verdict.reasons)
    why = f"  {', '.join(codes)}" if codes else ""
    return f"{bar:<{BAR + 1}} {name} {share:.0%}{why}"


def _in_words(found: Sequence[AtLoad]) -> str:
    best = highest_valid(found)
    num_valid = sum(each.verdict == "VALID" for each in found)
    text = f"{num_valid} of {quantity(len(found), 'loads')} VALID"
    if best is None:
        return text
    return f"{text}; all up to {exact(best.target_qps)} queries/s are"


def advice(record: Record) -> list[str]:
    """What to do after a sweep."""
    found = loads(record)
    best = highest_valid(found)
    if not found:
        return []
    scenario = record.plan.scenario
    if best is None:
        return [f"No load of the sweep is VALID: try lower ones, below {exact(found[0][0])}."]
    tune = f"`python -m sut.tune --scenario {scenario}` searches between the loads."
    at = load.set_to(best.target_qps, scenario)
    one = f"For a result at the highest VALID load, run it alone: `{at}`."
    return [one, tune]


def section(record: Record, figures: tuple[Figure, ...] = ()) -> Section | None:
    found = loads(record)
    if not found:
        return None
    repeated = record.plan.repeat > 1
    head = ["target_qps", "verdict", "tokens/s", "goodput, samples/s"]
    head += [f"{name} {q}, ms" for name in ("TTFT", "TPOT") for q in ("p50", "p99")]
    priced = any(phase.cost_per_million_tokens is not None for phase in record.phases)
    metered = any(energy_per_token(phase) for phase in record.phases)
    head += ["cost of 1M output tokens"] * priced + ["energy (not MLPerf Power)"] * metered
    rows = [tuple(_cells(each, repeated, priced, metered)) for each in found]
    text = (
        f"{_in_words(found)}. Each load has its own test"
        f"{'s' * repeated}, one after the other on one start of the engines; the run is VALID only "
        "if all of them are. Goodput counts the samples that are within both limits."
    )
    if repeated:
        text += f" Means of {quantity(record.plan.repeat, 'tests')}, with 95% intervals."
        if any(NO_WIDTH in cell for row in rows for cell in row):
            text += f" {NO_WIDTH}: no interval, the tests differ too much."
    return Section(title="Sweep", text=f"{text}\n\n{table(head, rows)}", figures=figures)


def _cells(each: AtLoad, repeated: bool, priced: bool, metered: bool) -> Iterator[str]:
    figures = each.figures()
    yield exact(each.target_qps)
    yield each.verdict
    for name in ("throughput", "goodput", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"):
        figure = figures.get(name)
        if figure is None:
            yield "-"
        elif repeated and len(each.phases) > 1:
            width = figure.half_width
            yield f"{number(figure.mean)} {NO_WIDTH if width is None else f'± {number(width)}'}"
        else:
            yield number(figure.mean)
    if priced:
        yield number(figures["cost"].mean) if "cost" in figures else "-"
    if metered:
        yield energy_per_token(each.phases[0]) or "-"
