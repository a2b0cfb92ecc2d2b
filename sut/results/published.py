"""Published results of MLPerf Inference's LLM benchmarks, and where a result stands among them.

``published.csv`` has the results of rounds v5.1, v6.0 and v6.1 for llama2-70b-99.9, llama3.1-8b,
llama3.1-8b-edge and gpt-oss-120b, from the summaries of MLCommons' public repositories
(github.com/mlcommons/inference_results_v5.1, _v6.0, _v6.1), which by MLCommons' submission rules
are Apache 2 compatible. ``result`` is MLPerf's metric: SingleStream's 90th percentile of latency
in ms, and else tokens per second of the whole system. (v5.1's summary calls eight results of
llama3.1-8b Interactive Queries/s; by LoadGen's logs they are tokens per second.)

Per accelerator is a derived metric, not MLPerf's.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import io
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sut.errors import InputError, nearest
from sut.plan import mlperf_conf
from sut.plan.benchmark import Scenario
from sut.plan.plan import Plan
from sut.plan.site import Device
from sut.results.measures import Measures, measure
from sut.results.mllog import Scalar
from sut.results.rounds import MIN_DURATION_MS
from sut.units import against, number, quantity
from sut.values import Struct

_LOADGEN_NAMES = {
    "gpt-oss-120b": "gpt-oss-120b",
    "llama2-70b-99.9": "llama2-70b",
    "llama3.1-8b": "llama3_1-8b",
    "llama3.1-8b-edge": "llama3_1-8b-edge",
}
BENCHMARKS = tuple(_LOADGEN_NAMES)  # of the file
CLOSED = "closed"
NEIGHBOURS = 2  # shown on each side
SAME_CHIP = 3  # shown at most

# TTFT and TPOT, ms, of Server and Interactive, from LoadGen's mlperf.conf.
_LIMITS_MS = {
    "llama2-70b-99.9": {"Server": (2000, 200), "Interactive": (450, 40)},
    "llama3.1-8b": {"Server": (2000, 100), "Interactive": (500, 30)},
    "gpt-oss-120b": {"Server": (3000, 80), "Interactive": (2000, 15)},
}
# A chip in the names of MLCommons and of NVIDIA's driver: H200, MI355X, GB300, RTX PRO 6000.
_CHIP = re.compile(r"RTX PRO \d{4}|\b[A-Z]{1,2}\d{2,4}[A-Z]?\b")


class Result(Struct, frozen=True, kw_only=True):
    """A published result. ``accelerators`` are those of all ``nodes``; 0: processors only."""

    round: str
    division: str
    availability: str
    organization: str
    system: str
    benchmark: str
    scenario: str
    result: float
    nodes: int
    accelerator: str
    accelerators: int


class Place(Struct, frozen=True, kw_only=True):
    """A result among others. ``rank`` counts from 1, the best; ``per_unit`` is the result per
    accelerator or, without any, per node; SingleStream's latency is not divided. ``published`` is
    None for the result that is compared."""

    rank: int
    result: float
    per_unit: float
    published: Result | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """Where a result stands among the closed division's. ``unit`` is what it is compared by, e.g.
    ``tokens/s per accelerator``; ``places`` are the best, the worst, the nearest and those of the
    same chip, by rank. ``not_comparable`` is what makes the test smaller than each of theirs."""

    benchmark: str
    scenario: str
    unit: str
    metric: str  # MLPerf's
    num: int
    rounds: tuple[str, ...]
    accelerator: str
    accelerators: int
    places: tuple[Place, ...]
    not_comparable: tuple[str, ...] = ()


class Subject(Struct, frozen=True, kw_only=True):
    """What is known of a test beside its log."""

    benchmark: str
    accelerators: int
    accelerator: str = ""
    nodes: int = 1


@functools.cache
def results() -> tuple[Result, ...]:
    text = importlib.resources.files("sut.results").joinpath("published.csv").read_text("utf-8")
    return tuple(
        msgspec.convert(row, Result, strict=False) for row in csv.DictReader(io.StringIO(text))
    )


def subject_of(plan: Plan, accelerator: str) -> Subject:
    """A run's; ``accelerator`` is the name of its first GPU."""
    on_gpus = plan.device is Device.CUDA
    gpus = sum(len(part.gpus) for replica in plan.replicas for part in replica.parts)
    return Subject(
        benchmark=plan.benchmark,
        accelerators=gpus if on_gpus else 0,
        accelerator=accelerator if on_gpus else "",
        nodes=len(plan.nodes),
    )


def standing(
    values: Mapping[str, Scalar], subject: Subject, scenario: Scenario | None = None
) -> Standing:
    """Where a performance test with LoadGen's ``values`` stands. Raises InputError where there is
    nothing to compare it with.

    Without the plan's ``scenario`` a Server test whose limits are Interactive's is Interactive.
    """
    if subject.benchmark not in BENCHMARKS:
        near = nearest(subject.benchmark, BENCHMARKS)
        raise InputError(
            f"no published results of {subject.benchmark!r}{near}",
            hint=f"known are {', '.join(BENCHMARKS)}",
        )
    name = _scenario(values, subject, scenario)
    seen = measure(values)
    value = seen.latency_ms.p90 if name == "SingleStream" else seen.tokens_per_s
    if not value:
        raise InputError(f"not a test of {subject.benchmark}: LoadGen counted no tokens")
    others = [
        each
        for each in results()
        if (each.benchmark, each.scenario, each.division) == (subject.benchmark, name, CLOSED)
        and (name == "SingleStream" or bool(each.accelerators) == bool(subject.accelerators))
    ]
    if not others:
        raise InputError(f"no published results of {subject.benchmark}, {name}, closed division")
    smaller = tuple(_smaller(values, seen, _LOADGEN_NAMES[subject.benchmark]))
    return msgspec.structs.replace(_standing(name, value, subject, others), not_comparable=smaller)


def chip(accelerator: str) -> str:
    """The chip in an accelerator's name, as MLCommons or a driver writes it; empty if unknown."""
    found = _CHIP.search(accelerator.upper())
    return found[0] if found else ""


def _smaller(values: Mapping[str, Scalar], seen: Measures, loadgen_name: str) -> Iterable[str]:
    """Where a test is smaller than MLPerf asks for. A test with the official settings that is VALID
    is not."""
    shortest_ms = values.get("effective_min_duration_ms")
    ran_s, least_s = seen.duration_s or 0.0, MIN_DURATION_MS / 1e3
    short = isinstance(shortest_ms, int) and shortest_ms < MIN_DURATION_MS
    if short and ran_s < least_s:
        yield f"the test ran {against(ran_s, least_s, 's')}, MLPerf's run at least {least_s:g} s"
    scenario = str(values.get("effective_scenario"))
    least = mlperf_conf.find(mlperf_conf.values(), loadgen_name, scenario, "min_query_count")
    num = seen.num_samples
    if least is not None and num is not None and num < int(least):
        yield (
            f"the test issued {quantity(num, 'samples')}, MLPerf's of {scenario} issue at least "
            f"{number(int(least))}"
        )


def _standing(name: str, value: float, subject: Subject, others: Sequence[Result]) -> Standing:
    latency = name == "SingleStream"

    def per_unit(result: float, accelerators: int, nodes: int) -> float:
        return result if latency else result / (accelerators or nodes)

    mine = per_unit(value, subject.accelerators, subject.nodes)
    ranked: list[tuple[float, Result | None]] = [
        (per_unit(each.result, each.accelerators, each.nodes), each) for each in others
    ]
    ranked.append((mine, None))
    ranked.sort(key=lambda pair: (pair[0] if latency else -pair[0], pair[1] is not None))
    places = [
        Place(
            rank=rank,
            result=each.result if each else value,
            per_unit=share,
            published=each,
        )
        for rank, (share, each) in enumerate(ranked, start=1)
    ]
    metric = "ms" if latency else "tokens/s"
    unit = "p90 of latency, ms" if latency else f"tokens/s per {_divisor(subject)}"
    return Standing(
        benchmark=subject.benchmark,
        scenario=name,
        unit=unit,
        metric=metric,
        num=len(others),
        rounds=tuple(sorted({each.round for each in others})),
        accelerator=subject.accelerator,
        accelerators=subject.accelerators,
        places=tuple(_shown(places, chip(subject.accelerator))),
    )


def _divisor(subject: Subject) -> str:
    return "accelerator" if subject.accelerators else "node"


def _shown(places: Sequence[Place], same: str) -> Iterable[Place]:
    """The best, the worst, the nearest, and the nearest of the same chip."""
    at = next(place.rank for place in places if place.published is None)
    shown = {1, len(places), *range(at - NEIGHBOURS, at + NEIGHBOURS + 1)}
    alike = [
        place.rank
        for place in places
        if same and place.published and chip(place.published.accelerator) == same
    ]
    shown |= set(sorted(alike, key=lambda rank: abs(rank - at))[:SAME_CHIP])
    return (place for place in places if place.rank in shown)


def _scenario(values: Mapping[str, Scalar], subject: Subject, scenario: Scenario | None) -> str:
    name = str(values.get("effective_scenario"))
    limits_ms = _LIMITS_MS.get(subject.benchmark)
    if name != "Server" or limits_ms is None:
        return name
    mine = [values.get(f"requested_server_{which}_latency") for which in ("ttft", "tpot")]
    names = ("Server",) if scenario is Scenario.SERVER else ("Interactive", "Server")
    for each in ("Interactive",) if scenario is Scenario.INTERACTIVE else names:
        pairs = zip(mine, limits_ms[each], strict=True)
        if all(isinstance(ns, int | float) and ns / 1e6 <= limit for ns, limit in pairs):
            return each
    of_server = " and ".join(f"{number(limit)} ms" for limit in limits_ms["Server"])
    raise InputError(
        f"not comparable with published {subject.benchmark}: its limits on TTFT and TPOT are "
        f"easier than MLPerf's (Server: {of_server})",
        hint="run it with the limits of LoadGen's own mlperf.conf",
    )
