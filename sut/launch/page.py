"""A plan on one page, for ``--dry-run``: what runs, where, how long, and what was checked."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from sut import layout
from sut.cluster import runs, sbatch
from sut.launch import plan_words
from sut.launch.finding import Finding
from sut.plan import duration
from sut.plan.benchmark import AUTO
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.units import quantity
from sut.values import Struct

_TITLE = 10  # width of the first column


class Checked(Struct, frozen=True, kw_only=True):
    """``ok`` is None for a check that this machine cannot make."""

    name: str
    ok: bool | None
    text: str
    problems: tuple[str, ...] = ()
    warning: str = ""


class Page(Struct, frozen=True, kw_only=True):
    """A plan for reading. None: LoadGen takes mlperf.conf's value."""

    name: str | None = None  # of a campaign's run
    benchmark: str
    site: str
    scenario: str
    mode: str
    tests: tuple[str, ...]
    preset: str
    model: str
    data: str
    engine: str
    nodes: str
    slurm: str | None  # the site's options of sbatch; None: no Slurm job
    num_nodes: int
    num_replicas: int
    load: str
    limits: str
    size: str
    measuring_s: float  # predicted
    measures_load: bool  # the prediction is for a low load
    wall_limit_min: int | None  # None: no Slurm job
    official: bool
    not_official_because: tuple[str, ...]
    checks: tuple[Checked, ...]


def of(plan: Plan, checks: Sequence[Finding], name: str = "") -> Page:
    settings, samples = plan.loadgen_settings, plan.dataset.num_samples
    return Page(
        name=name or None,
        benchmark=plan.benchmark,
        site=plan.site,
        scenario=plan.scenario,
        mode=plan.mode,
        tests=tuple(test.name for test in plan.tests),
        preset=plan.preset,
        model=plan_words.model(plan),
        data=plan_words.data(plan),
        engine=plan_words.engine(plan),
        nodes=plan_words.nodes(plan),
        slurm=sbatch.shown(plan.slurm) if plan.slurm else None,
        num_nodes=len(plan.nodes),
        num_replicas=len(plan.replicas),
        load=plan_words.load(plan),
        limits=plan_words.limits(plan),
        size=plan_words.size(plan),
        measuring_s=round(
            duration.of_tests(
                *(plan.scenario, plan.tests, settings, samples),
                plan.chosen_qps,
                plan.compliance,
            ),
            1,
        ),
        measures_load=plan.measures_load,
        wall_limit_min=plan.slurm.time_min if plan.slurm else None,
        official=plan.official,
        not_official_because=plan.not_official_because,
        checks=tuple(
            Checked(
                name=c.name,
                ok=c.ok,
                text=c.text,
                problems=tuple(map(str, c.problems)),
                warning=c.warning,
            )
            for c in checks
        ),
    )


def render(page: Page, width: int = layout.PAGE) -> str:
    """The page as text, without a last newline."""
    title = page.name or f"{page.benchmark}, {page.scenario}"
    lines = [*layout.wrap(f"{title}: dry run, nothing was started", width), ""]
    for name, values in _rows(page):
        for index, value in enumerate(values):
            first = f"{name if index == 0 else '':{_TITLE}}  "
            lines += layout.wrap(value, width, first, " " * (len(first) + 2))
    return "\n".join(lines)


def commands(command: str, run_root: Path) -> str:
    """How to start the runs of one dry run, to look at them, and to see the whole plan."""
    latest = run_root / runs.LATEST
    rows = [
        ("start", command),
        ("follow", shlex.join(["python", "-m", "sut.watch", str(latest)])),
        ("read", str(latest / RunDir(latest).report_html.name)),
        ("whole plan", f"{command} --dry-run --full"),
    ]
    return "\n".join(f"{name:{_TITLE}}  {value}" for name, value in rows)  # never wrapped


def _rows(page: Page) -> Iterator[tuple[str, list[str]]]:
    *others, last = page.tests or (page.mode,)
    tests = f"{', '.join(others)} and {last}" if others else last
    yield "what", [f"{page.benchmark}, scenario {page.scenario}, {tests}, preset {page.preset}"]
    yield "model", [page.model]
    yield "data", [page.data]
    yield "engine", [page.engine]
    yield "where", [f"site {page.site}, {page.nodes}"]
    if page.slurm is not None:
        yield "sbatch", [page.slurm]
    yield "load", [page.load]
    yield "limits", [page.limits]
    yield "size", [page.size]
    wall = f"; wall limit {page.wall_limit_min:,} min" if page.wall_limit_min else ""
    measuring = plan_words.duration(page.measuring_s)
    planned = f" ({AUTO} counted as {quantity(duration.ASSUMED_QPS, 'queries')}/s)"
    at = planned if page.measures_load else ""
    yield "time", [f"about {measuring} measuring{at}, after loading and warm-up{wall}"]
    reasons = [f"- {reason}" for reason in page.not_official_because]
    yield "official", ["yes" if page.official else "no:", *reasons]
    if page.checks:
        width = max(len(check.name) for check in page.checks)
        yield "checked", [_check(check, width) for check in page.checks]


def _check(check: Checked, width: int) -> str:
    words = {True: "ok", False: "NOT OK", None: "-"}
    word = "WARN" if check.warning else words[check.ok]
    return f"{word:6}  {check.name:{width}}  {check.text}".rstrip()
