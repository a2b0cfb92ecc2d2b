"""A plan on one page, for ``--dry-run``: what runs, where, how long, and what was checked."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from sut.cluster import runs
from sut.launch.finding import Finding
from sut.plan import fit, mlperf_conf
from sut.plan.benchmark import AUTO, EngineKind, Scenario
from sut.plan.plan import Mode, Plan, uses_model
from sut.plan.site import Device
from sut.results.offered import FRACTION
from sut.rundir import RunDir
from sut.units import number, quantity
from sut.values import Struct

WIDTH = 100  # of a line
_TITLE = 10  # width of the first column
_FROM_CONF = "as in mlperf.conf"  # a setting that the plan leaves to LoadGen


class Checked(Struct, frozen=True, kw_only=True):
    """``ok`` is None for a check that this machine cannot make."""

    name: str
    ok: bool | None
    text: str
    problems: tuple[str, ...] = ()


class Page(Struct, frozen=True, kw_only=True):
    """A plan for reading. None: LoadGen takes mlperf.conf's value."""

    name: str = ""  # of a campaign's run
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
        name=name,
        benchmark=plan.benchmark,
        site=plan.site,
        scenario=plan.scenario,
        mode=plan.mode,
        tests=tuple(plan.phases),
        preset=plan.preset,
        model=_model(plan),
        data=f"{plan.dataset.name}: {quantity(samples, 'samples')}"
        + (f", {plan.dataset.path}" if plan.dataset.path else ""),
        engine=_engine(plan),
        nodes=_nodes(plan),
        num_nodes=len(plan.nodes),
        num_replicas=len(plan.replicas),
        load=_load(plan),
        limits=_limits(plan),
        size=_size(plan),
        measuring_s=round(
            sum(fit.phase_s(plan.scenario, test, settings, samples) for test in plan.phases), 1
        ),
        measures_load=plan.measures_load,
        wall_limit_min=plan.slurm.time_min if plan.slurm else None,
        official=plan.official,
        not_official_because=plan.not_official_because,
        checks=tuple(
            Checked(name=c.name, ok=c.ok, text=c.text, problems=tuple(map(str, c.problems)))
            for c in checks
        ),
    )


def render(page: Page) -> str:
    """The page as text, without a last newline."""
    title = page.name or f"{page.benchmark}, {page.scenario}"
    lines = [f"{title}: dry run, nothing was started", ""]
    for name, values in _rows(page):
        for index, value in enumerate(values):
            lines += _wrapped(name if index == 0 else "", value)
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
    tests = " and ".join(page.tests) or page.mode
    yield "what", [f"{page.benchmark}, scenario {page.scenario}, {tests}, preset {page.preset}"]
    yield "model", [page.model]
    yield "data", [page.data]
    yield "engine", [page.engine]
    yield "where", [f"site {page.site}, {page.nodes}"]
    yield "load", [page.load]
    yield "limits", [page.limits]
    yield "size", [page.size]
    wall = f"; wall limit {page.wall_limit_min:,} min" if page.wall_limit_min else ""
    about = "up to" if page.measures_load else "about"
    yield "time", [f"{about} {_time(page.measuring_s)} measuring, after loading and warm-up{wall}"]
    reasons = [f"- {reason}" for reason in page.not_official_because]
    yield "official", ["yes" if page.official else "no:", *reasons]
    if page.checks:
        width = max(len(check.name) for check in page.checks)
        yield "checked", [_check(check, width) for check in page.checks]


def _check(check: Checked, width: int) -> str:
    words = {True: "ok", False: "NOT OK", None: "-"}
    return f"{words[check.ok]:6}  {check.name:{width}}  {check.text}".rstrip()


def _wrapped(name: str, value: str) -> list[str]:
    first = f"{name:{_TITLE}}  "
    return textwrap.wrap(
        value,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * (len(first) + 2),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    ) or [first.rstrip()]


def _model(plan: Plan) -> str:
    if not uses_model(plan.engine, plan.dataset):
        return "none"
    if plan.model.embedded:
        return f"{plan.model.name}, built on first use"
    return f"{plan.model.name}, {plan.model.path}"


def _engine(plan: Plan) -> str:
    engine = plan.engine
    what = "the replay engine" if engine.kind is EngineKind.REPLAY else f"vLLM, {engine.dtype}"
    sizes = f"at most {number(engine.max_num_seqs)} sequences of {number(engine.max_model_len)}"
    extra = f"; {' '.join(engine.extra_args)}" if engine.extra_args else ""
    text = f"{what}, {sizes} tokens, {number(engine.max_num_batched_tokens)} tokens a step{extra}"
    if plan.keep_engine_min:
        text += f"; stays for {quantity(plan.keep_engine_min, 'minutes')} after the run"
    return text


def _nodes(plan: Plan) -> str:
    replicas = quantity(len(plan.replicas), "replicas")
    size = plan.engine.tensor_parallel_size * plan.engine.pipeline_parallel_size
    if plan.device is Device.CUDA:
        replicas += f" of {quantity(size, 'GPUs')}"
    if plan.slurm is None:
        return f"this machine, {replicas}"
    named = plan.nodes_text()
    nodes = quantity(len(plan.nodes), "nodes")
    return f"{nodes}{named and f' ({named})'}, {replicas}"


def _load(plan: Plan) -> str:
    settings = plan.loadgen_settings
    if plan.scenario is Scenario.SINGLE_STREAM:
        expected = settings.target_latency_ms
        each = f", {quantity(expected, 'ms')} expected for each" if expected else ""
        return f"one query at a time{each}"
    if settings.target_qps == AUTO:
        return f"{AUTO}: {FRACTION:.0%} of what the engines complete, measured in the warm-up"
    qps = float(settings.target_qps) if settings.target_qps else None
    return quantity(qps, "samples/s" if _is_offline(plan) else "queries/s")


def _limits(plan: Plan) -> str:
    if plan.scenario in (Scenario.OFFLINE, Scenario.SINGLE_STREAM):
        return "none"
    settings = mlperf_conf.effective(plan)
    limits = {"TTFT p99": settings.ttft_latency_ms, "TPOT p99": settings.tpot_latency_ms}
    return ", ".join(
        f"{name} {quantity(value, 'ms') if value else _FROM_CONF}" for name, value in limits.items()
    )


def _size(plan: Plan) -> str:
    settings = mlperf_conf.effective(plan)
    if plan.phases == (Mode.ACCURACY,):
        count = settings.accuracy_sample_count or plan.dataset.num_samples
        return f"{quantity(count, 'samples')}, each once"
    unit = "samples" if _is_offline(plan) else "queries"
    least = f"the number of {unit} {_FROM_CONF}"
    if settings.min_query_count is not None:
        least = quantity(settings.min_query_count, unit)
    duration = _time((settings.min_duration_ms or 0) / 1e3)
    most = [
        *([quantity(settings.max_query_count, unit)] if settings.max_query_count else []),
        *([_time(settings.max_duration_ms / 1e3)] if settings.max_duration_ms else []),
    ]
    text = f"at least {duration} and {least}"
    return text + (f"; at most {' or '.join(most)}" if most else "")


def _is_offline(plan: Plan) -> bool:
    return plan.scenario is Scenario.OFFLINE


def _time(seconds: float) -> str:
    if seconds < 120:
        return quantity(round(seconds, 1 if seconds < 10 else None), "s")
    if seconds < 7200:
        return quantity(round(seconds / 60), "min")
    return quantity(round(seconds / 3600, 1), "h")
