"""A run's state as text: a line, or a frame for a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from sut import layout
from sut.errors import quoted
from sut.report.summary import Message
from sut.results.record import headline
from sut.units import exact, number, quantity
from sut.watch.state import PhaseState, ReplicaState, RunState, Shown

SILENT_S = 15.0  # without progress, after which a warning is shown
SHORT_S = 1.0  # no shorter times are shown
_STYLES = {"VALID": "green", "INVALID": "red"}
_BAR_WIDTH = 30
_NARROW = 80  # columns, below which the bar is a third of it
_NAME_WIDTH = 12
_REPLICA_COLUMNS = (
    *("replica", "node", "samples", "in flight", "running", "waiting"),
    *("KV", "prompt/s", "tokens/s"),
)


def line(state: RunState) -> str:
    begin = "" if state.t_s is None else f"{state.t_s + (state.silent_s or 0):6.1f} s  "
    phase = next((phase for phase in state.phases if phase.state == "running"), None)
    if phase is None or state.state != "running":
        return begin + _situation(state)
    load = f" at {exact(state.target_qps)} queries/s" if state.target_qps is not None else ""
    parts = [f"{phase.name}{load}: {_done(phase)} done", f"{number(phase.in_flight)} in flight"]
    parts += [f"{number(phase.queued)} queued", quantity(phase.output_tokens_per_s, "tokens/s")]
    parts += [f"{name} p99 {quantity(p99, 'ms')}" for name, p99, _ in _latencies(phase)]
    if phase.projection is not None and phase.projection.words:
        parts.append(phase.projection.words)
    if state.left_s is not None:
        parts.append(f"{duration(state.left_s)} left")
    return begin + ", ".join(parts)


class _Frame:
    def __init__(self, state: RunState, spinner: Spinner | None) -> None:
        self._state = state
        self._spinner = spinner

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield _drawn(self._state, self._spinner, options.max_width)


def frame(state: RunState, spinner: Spinner | None = None) -> RenderableType:
    """A state for a terminal of any width. ``spinner`` is drawn beside the step."""
    return _Frame(state, spinner)


def _drawn(state: RunState, spinner: Spinner | None, width: int) -> RenderableType:
    parts: list[RenderableType] = [_title(state), _now(state, spinner)]
    if state.shown is not None:
        parts += _shown(state, state.shown)
    longest = max((len(phase.name) for phase in state.phases), default=0)
    indent = max(longest + 1, _NAME_WIDTH)
    for phase in state.phases:
        parts += _phase(phase, width, indent)
    replicas = next((p.replicas for p in state.phases if p.state == "running"), ())
    if replicas and state.state == "running":
        parts += [Text(), _replicas(replicas, width)]
    if state.state == "running" and any(_is_lost(phase) for phase in state.phases):
        parts += [Text(f"to end the run: python -m sut.cancel {quoted(state.run)}", "dim")]
    return Group(*parts)


def _is_lost(phase: PhaseState) -> bool:
    projection = phase.projection
    return phase.state == "running" and bool(projection and projection.certain)


def _title(state: RunState) -> Text:
    title = f"{state.benchmark}, {state.scenario}, {state.preset} preset"
    if state.target_qps is not None:
        title += f", {exact(state.target_qps)} queries/s"
    return Text.assemble((title, "bold"), f"\n{state.run}")


def _now(state: RunState, spinner: Spinner | None) -> RenderableType:
    """What the run is doing, or how it ended."""
    now = Text(_situation(state), _STYLES.get(state.verdict or "", ""))
    if state.left_s is not None:
        ends = datetime.now() + timedelta(seconds=state.left_s)
        now.append(f", {duration(state.left_s)} left, ends about {ends:%H:%M:%S}")
    if state.silent_s is not None and state.silent_s > SILENT_S and _can_progress(state):
        now.append(f"\nno progress for {duration(state.silent_s)}", "yellow")
    if spinner is None:
        return now
    row = Table.grid(padding=(0, 1))
    row.add_row(spinner, now)
    return row


def _situation(state: RunState) -> str:
    """The run's step, or how it ended."""
    job = state.job
    on = f"job {job.job_id}" + (f" on {job.nodes}" if job.nodes else "") if job else ""
    match state.state:
        case "pending" if job is not None:
            why = f": {job.reason}" if job.reason else ""
            since = f", since {job.since}" if job.since else ""
            start = f", expected to start at {job.start}" if job.start else ""
            return f"job {job.job_id} is {job.state}{why}{since}{start}"
        case "finished":
            word = headline(state.verdict or (state.status or "").upper(), state.mode)
            why = _inside(state, Message.of(state.failure or "").first.rstrip(":"))
            still = f"; {state.ending}{_times(state)}" if state.ending else ""
            return f"finished: {word}" + (f", {why}" if why else "") + still
        case "lost":
            cause = f": {state.shown.cause}" if state.shown and state.shown.cause else ""
            return f"lost: it ended without a record: {state.why}{cause}"
        case "unknown":
            return f"unknown: no record yet, and {state.why}"
        case _:
            step = state.step or "starting"
            return f"{step} ({on}){_times(state)}" if on else f"{step}{_times(state)}"


def _shown(state: RunState, shown: Shown) -> list[RenderableType]:
    """The lines of a log that show a failure, and what to do."""
    head = Text(f"{_inside(state, shown.log)}:", "dim")
    hint = [Text(f"hint: {shown.hint}")] if shown.hint else []
    return [head, *(Text(line, "dim") for line in shown.lines), *hint]


def _inside(state: RunState, text: str) -> str:
    """A text with the paths in the run's folder, which is in the title, relative to it: a terminal
    breaks long ones anywhere."""
    return text.replace(f"{state.run}/", "")


def _can_progress(state: RunState) -> bool:
    """Whether silence means no progress. A step that shows its time may write nothing for long."""
    return state.state not in ("pending", "finished") and state.stage_s is None


def _times(state: RunState) -> str:
    """How long the step has been going on, and how long the stage that it is part of usually
    takes."""
    if state.stage_s is None or state.step_s is None:
        return ""
    usual = ""
    if state.usual_s is not None and state.usual_s >= SHORT_S:
        usual = f"usually {duration(state.usual_s)}"
    if state.stage_s - state.step_s < SHORT_S:  # its only part so far
        parts = [duration(state.stage_s), usual] if state.stage_s >= SHORT_S else []
    else:
        whole = f"{state.stage}: {duration(state.stage_s)}"
        parts = [duration(state.step_s)] if state.step_s >= SHORT_S else []
        parts += [f"{whole}, {usual}"] if usual else []
    return "".join(f", {part}" for part in parts if part)


def _phase(phase: PhaseState, width: int, indent: int) -> list[RenderableType]:
    name = Text(f"{phase.name:<{indent}}", "bold")
    if not phase.elapsed_s:
        word = phase.verdict or phase.state
        return [name.append(word, _STYLES.get(word, "dim")), *_reasons(phase.reasons, indent)]
    rows = _head(name, phase, width, indent)
    numbers = [f"queued {number(phase.queued)}", f"in flight {number(phase.in_flight)}"]
    if phase.state == "running":
        rates = (phase.prompt_tokens_per_s, phase.output_tokens_per_s)
        numbers.append("tokens/s: {} prompt, {} generated".format(*map(number, rates)))
    latencies = [_latency(*latency) for latency in _latencies(phase)]
    if phase.state == "running":
        rows.append(_indented(Text(", ".join(numbers)), indent))
    if latencies:
        rows.append(_indented(Text(", ").join(latencies), indent))
    reasons = phase.reasons or (phase.projection.reasons if phase.projection else ())
    return [*rows, *_reasons(reasons, indent)]


def _head(name: Text, phase: PhaseState, width: int, indent: int) -> list[RenderableType]:
    """The name, the bar, the count, and the word, which is below them where it does not fit."""
    bar_width = _BAR_WIDTH if width >= _NARROW else _BAR_WIDTH // 3
    done, word = _done(phase), _word(phase)
    cells: list[RenderableType] = [name, _bar(phase, bar_width), done]
    fits = len(name) + bar_width + len(done) + len(word) + 2 * len(cells) <= width
    head = Table.grid(padding=(0, 1))
    head.add_row(*cells, *[word] * fits)
    return [head] if fits else [head, _indented(word, indent)]


def _reasons(reasons: tuple[str, ...], indent: int) -> list[RenderableType]:
    return [_indented(Text(reason, "yellow"), indent) for reason in reasons]


def _indented(text: Text, indent: int) -> Padding:
    return Padding(text, (0, 0, 0, indent + 1))


def _bar(phase: PhaseState, width: int) -> ProgressBar:
    total = phase.projection.num_samples if phase.projection else max(phase.completed, 1)
    style = _STYLES.get(_verdict(phase), "blue")
    return ProgressBar(
        total=max(total, 1),
        completed=phase.completed,
        width=width,
        complete_style=style,
        finished_style=style,
    )


def _verdict(phase: PhaseState) -> str:
    """The verdict, or the one that is expected; empty while nothing is known."""
    return phase.verdict or (phase.projection and phase.projection.verdict) or ""


def _done(phase: PhaseState) -> str:
    if phase.projection is None:
        return number(phase.completed)
    return f"{number(phase.completed)} of {number(phase.projection.num_samples)}"


def _word(phase: PhaseState) -> Text:
    """The phase's verdict or projected verdict."""
    style = _STYLES.get(_verdict(phase), "")
    if phase.verdict is not None:
        return Text(phase.verdict, style)
    if phase.state != "running" or phase.projection is None:
        return Text(phase.state, "dim")
    return Text(phase.projection.words, style)


def _latencies(phase: PhaseState) -> list[tuple[str, float, float | None]]:
    """Name, p99 and limit of each known latency, in ms."""
    found = (
        ("TTFT", phase.ttft_p99_ms, phase.ttft_limit_ms),
        ("TPOT", phase.tpot_p99_ms, phase.tpot_limit_ms),
    )
    return [(name, p99, limit) for name, p99, limit in found if p99 is not None]


def _latency(name: str, p99: float, limit: float | None) -> Text:
    over = limit is not None and p99 > limit
    text = Text(f"{name} p99 {quantity(p99, 'ms')}", "red" if over else "")
    return text.append(f" (limit {quantity(limit, 'ms')})" if limit is not None else "", "dim")


def _replicas(replicas: tuple[ReplicaState, ...], width: int) -> Text:
    rows = [
        (
            str(replica.index),
            replica.node,
            number(replica.samples),
            number(replica.in_flight),
            number(replica.running),
            number(replica.waiting),
            f"{replica.kv_cache_usage:.0%}",
            number(replica.prompt_tokens_per_s),
            number(replica.output_tokens_per_s),
        )
        for replica in replicas
    ]
    right = (0, *range(2, len(_REPLICA_COLUMNS)))
    return Text("\n".join(layout.columns(_REPLICA_COLUMNS, rows, right, width, gap=" ")))


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
