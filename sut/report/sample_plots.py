"""The plots of a phase's completed samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sut.report import svg
from sut.report.evidence import Subject
from sut.report.page import Figure
from sut.report.svg import LIMIT, SERIES, Array, figure
from sut.results.sample_log import SampleLog
from sut.units import number, quantity

MAX_DOTS = 1500
NUM_BINS = 80  # of time
MIN_BIN_S = 0.25


def draw(subject: Subject) -> list[Figure]:
    figures: list[Figure | None] = []
    samples = subject.evidence.samples
    if samples is not None and len(samples) > 0:
        columns = _columns(samples)
        for name in ("TTFT", "TPOT"):
            figures.append(_distribution(name, columns, subject))
            figures.append(_over_time(name, columns, subject))
        figures.append(_throughput(columns, subject))
        figures.append(_in_flight(columns, subject))
        figures.append(_prompt_length(columns, subject))
    return [each for each in figures if each is not None]


def _columns(samples: SampleLog) -> dict[str, Array]:
    """The samples as numpy arrays, times in seconds, with TTFT and TPOT in ms."""
    c = {
        name: np.asarray(getattr(samples, name), dtype=float) for name in samples.__struct_fields__
    }
    decoded = c["output_tokens"] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(decoded > 0, (c["completed_ms"] - c["first_token_ms"]) / decoded, np.nan)
    return {
        "replica": c["replica"].astype(int),
        "prompt_tokens": c["prompt_tokens"],
        "output_tokens": c["output_tokens"],
        "issued_s": c["issued_ms"] / 1e3,
        "admitted_s": c["admitted_ms"] / 1e3,
        "first_s": c["first_token_ms"] / 1e3,
        "completed_s": c["completed_ms"] / 1e3,
        "TTFT": c["first_token_ms"] - c["issued_ms"],
        "TPOT": tpot,
    }


def _distribution(name: str, columns: Mapping[str, Array], subject: Subject) -> Figure | None:
    """The share of samples that took longer: p99 is where the curve falls below 1%."""
    values = np.sort(columns[name][~np.isnan(columns[name])])
    if len(values) < 2:
        return None
    longest, limit = float(values[-1]), subject.limits.get(name)
    plot = svg.axes(f"{name}, ms", "samples that took longer, %")
    longer = 100 * (1 - np.arange(1, len(values) + 1) / len(values))
    # One step for each of a few hundred shares: the whole tail, and the rest thinned out.
    kept = np.unique(np.searchsorted(-longer, -np.geomspace(100, 100 / len(values), 400)))
    kept = kept[kept < len(values) - 1]
    x = np.concatenate([[values[0]], values[kept], [longest]])
    y = np.concatenate([[100], longer[kept], [longer[-2]]])
    plot.step(x, y, where="post", color=SERIES[0], label=name)
    plot.set_yscale("log")
    plot.yaxis.set_major_formatter(lambda share, _: f"{share:g}")  # not the log scale's
    plot.axhline(
        1, color=SERIES[1], linestyle=":", label=f"1%: p99, {number(_quantile(values, 0.99))} ms"
    )
    _limit(plot.axvline, plot, limit, longest)
    over = "" if limit is None else f"; {number(int((values > limit).sum()))} over the limit"
    caption = (
        f"{name} of {number(len(values))} samples: p50 {quantity(_quantile(values, 0.5), 'ms')}, "
        f"max {quantity(longest, 'ms')}{over}."
    )
    return figure(f"{name}: distribution", caption, plot)


def _over_time(name: str, columns: Mapping[str, Array], subject: Subject) -> Figure | None:
    known = ~np.isnan(columns[name])
    values, when = columns[name][known], columns["issued_s"][known]
    if len(values) == 0:
        return None
    plot = svg.axes("s from the start, when issued", f"{name}, ms")
    chosen = _some(values)
    svg.dots(plot, when[chosen], values[chosen], SERIES[0], "one sample")
    middles, p99 = _binned(when, values, 0.99, min_count=20)
    if len(middles) > 1:
        plot.plot(middles, p99, color=SERIES[1], label="p99 at that time")
    _limit(plot.axhline, plot, subject.limits.get(name), float(values.max()))
    plot.set_ylim(bottom=0)
    return figure(
        f"{name} over time",
        f"{name} of each sample by the time LoadGen issued it{_of(chosen, values)}.",
        plot,
    )


def _throughput(columns: Mapping[str, Array], subject: Subject) -> Figure | None:
    """Output tokens a second. A sample's first token counts at its time; the others are spread
    evenly from then to the completion."""
    end = float(columns["completed_s"].max())
    edges = _edges(columns)
    if edges is None:
        return None
    plot = svg.axes("s from the start", "output tokens/s")
    middles, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    total = np.zeros(len(middles))
    replicas = _replicas(columns)
    for n, replica in enumerate(replicas):
        mine = columns["replica"] == replica
        rate = _tokens(columns, mine, edges) / width
        total += rate
        if len(replicas) <= len(SERIES):
            plot.plot(middles, rate, color=SERIES[n], label=subject.name(replica))
    if len(replicas) > 1:
        plot.plot(middles, total, color=svg.TEXT, linewidth=1, linestyle=":", label="all")
    plot.set_ylim(bottom=0)
    tokens = float(columns["output_tokens"].sum())
    return figure(
        "Throughput",
        f"Output tokens of completed samples over time: {number(tokens)} in {quantity(end, 's')}.",
        plot,
    )


def _tokens(columns: Mapping[str, Array], mine: Array, edges: Array) -> Array:
    """The number of tokens of the samples ``mine`` between each two ``edges``."""
    first, last = columns["first_s"][mine], columns["completed_s"][mine]
    later = columns["output_tokens"][mine] - 1
    spread = last > first
    rate = later[spread] / (last - first)[spread]
    times = np.concatenate([first[spread], last[spread]])
    order = np.argsort(times, kind="stable")
    times, slope = times[order], np.cumsum(np.concatenate([rate, -rate])[order])
    evenly = np.zeros(len(edges))
    if len(times):
        grown = np.concatenate([[0], np.cumsum(slope[:-1] * np.diff(times))])
        evenly = np.interp(edges, times, grown, left=0)
    at_once = np.concatenate([first, last[~spread]])
    counts = np.concatenate([np.ones(len(first)), later[~spread]])
    instant, _ = np.histogram(at_once, bins=edges, weights=counts)
    return np.diff(evenly) + instant


def _in_flight(columns: Mapping[str, Array], subject: Subject) -> Figure | None:
    edges = _edges(columns)
    if edges is None:
        return None
    plot = svg.axes("s from the start", "samples in flight")
    replicas = _replicas(columns)
    for n, replica in enumerate(replicas[: len(SERIES)]):
        mine = columns["replica"] == replica
        present = _present(columns["admitted_s"][mine], columns["completed_s"][mine], edges)
        plot.plot(edges, present, color=SERIES[n], label=subject.name(replica))
    if subject.max_num_seqs and subject.max_num_seqs <= 2 * plot.get_ylim()[1]:
        plot.axhline(
            subject.max_num_seqs,
            color=LIMIT,
            linestyle="--",
            label=f"max_num_seqs {subject.max_num_seqs}",
        )
    plot.set_ylim(bottom=0)
    return figure("In flight", "Completed samples by the time they were in a replica.", plot)


def _prompt_length(columns: Mapping[str, Array], subject: Subject) -> Figure | None:
    length, ttft = columns["prompt_tokens"], columns["TTFT"]
    if len(np.unique(length)) < 2:
        return None
    plot = svg.axes("prompt tokens", "TTFT, ms")
    chosen = _some(ttft)
    svg.dots(plot, length[chosen], ttft[chosen], SERIES[0], "one sample")
    middles, median = _binned(length, ttft, 0.5, min_count=5, num_bins=20)
    if len(middles) > 1:
        plot.plot(middles, median, color=SERIES[1], label="p50 at that length")
    _limit(plot.axhline, plot, subject.limits.get("TTFT"), float(ttft.max()))
    plot.set_ylim(bottom=0)
    return figure(
        "Prompt length and TTFT", f"TTFT by the length of the prompt{_of(chosen, ttft)}.", plot
    )


def _limit(
    draw_line: Callable[..., Any], plot: Any, limit_ms: float | None, longest_ms: float
) -> None:
    """The limit as a line. One far beyond all samples is in the legend only."""
    if limit_ms is None:
        return
    label = f"limit {quantity(limit_ms, 'ms')}"
    if limit_ms <= 3 * longest_ms:
        draw_line(limit_ms, color=LIMIT, linestyle="--", label=label)
    else:
        plot.plot([], [], color=LIMIT, linestyle="--", label=f"{label}, beyond the plot")


def _some(values: Array) -> Array:
    """Which samples to draw: all, or an even selection and the slowest hundred."""
    if len(values) <= MAX_DOTS:
        return np.arange(len(values))
    slowest = np.argsort(values)[-100:]
    evenly = np.linspace(0, len(values) - 1, MAX_DOTS - 100).astype(int)
    return np.union1d(evenly, slowest)


def _of(chosen: Array, values: Array) -> str:
    if len(chosen) == len(values):
        return ""
    return (
        f"; {number(len(chosen))} of {number(len(values))} samples are drawn: an even selection "
        "and the slowest hundred. Lines are for all samples"
    )


def _binned(
    x: Array, y: Array, fraction: float, *, min_count: int, num_bins: int = 40
) -> tuple[Array, Array]:
    """A quantile of ``y`` along ``x``, in bins with enough samples."""
    num_bins = max(1, min(num_bins, len(x) // (2 * min_count)))
    edges = np.linspace(x.min(), x.max(), num_bins + 1)
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, num_bins - 1)
    groups = [(n, y[place == n]) for n in range(num_bins)]
    kept = [(n, _quantile(group, fraction)) for n, group in groups if len(group) >= min_count]
    middles = [(edges[n] + edges[n + 1]) / 2 for n, _ in kept]
    return np.array(middles), np.array([value for _, value in kept])


def _quantile(values: Array, fraction: float) -> float:
    """By LoadGen's rule: the value at index ``n * fraction`` of the sorted values."""
    index = min(len(values) - 1, int(len(values) * fraction))
    return float(np.partition(values, index)[index])


def _edges(columns: Mapping[str, Array]) -> Array | None:
    """Bins of time from the start to the last completion; None if it is too short."""
    end = float(columns["completed_s"].max())
    num_bins = int(min(NUM_BINS, end / MIN_BIN_S))
    return np.linspace(0, end, num_bins + 1) if num_bins >= 2 else None


def _present(begin: Array, end: Array, at: Array) -> Array:
    """The number of intervals that contain each moment of ``at``."""
    return np.searchsorted(np.sort(begin), at, side="right") - np.searchsorted(
        np.sort(end), at, side="right"
    )


def _replicas(columns: Mapping[str, Array]) -> list[int]:
    return [int(replica) for replica in np.unique(columns["replica"])]
