"""Plots show what is in the samples, however many there are."""

from __future__ import annotations

import re
from array import array

import numpy as np
import pytest

from sut.machine.meters import Gpu, Reading
from sut.report import plots, sample_plots, svg
from sut.report.evidence import Evidence, Subject
from sut.report.page import Figure
from sut.results.progress import Line, ReplicaProgress
from sut.results.sample_log import SampleLog

Row = tuple[int, int, float, float, float]  # replica, output tokens, issued, first token, completed


def log_of(rows: list[Row]) -> SampleLog:
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return SampleLog(
        sample_index=array("q", range(len(rows))),
        replica=array("q", columns[0]),
        prompt_tokens=array("q", [10 + n % 7 for n in range(len(rows))]),
        output_tokens=array("q", columns[1]),
        issued_ms=array("d", columns[2]),
        admitted_ms=array("d", columns[2]),
        first_token_ms=array("d", columns[3]),
        completed_ms=array("d", columns[4]),
    )


def steady(count: int, *, tokens: int = 11) -> list[Row]:
    """A sample every 10 ms, TTFT 20 ms, TPOT 5 ms, on two replicas in turn."""
    return [
        (n % 2, tokens, 10.0 * n, 10.0 * n + 20, 10.0 * n + 20 + 5 * (tokens - 1))
        for n in range(count)
    ]


def draw(rows: list[Row], lines: list[Line] | None = None, **limits: float) -> dict[str, Figure]:
    evidence = Evidence(samples=log_of(rows), lines=lines or [])
    subject = Subject(evidence=evidence, limits=limits, nodes={0: "jw2", 1: "jw3"})
    drawn = [*sample_plots.draw(subject), *plots.of_progress(subject)]
    return {figure.title: figure for figure in drawn}


@pytest.mark.parametrize("rows", [[], steady(1), steady(2), steady(3, tokens=1), steady(2000)])
def test_draws_any_number_of_samples(rows: list[Row]) -> None:
    for figure in draw(rows, TTFT=10.0, TPOT=1e9).values():
        assert figure.svg.startswith("<svg") and figure.svg.rstrip().endswith("</svg>")
        assert "nan" not in figure.svg.lower()
        assert len(figure.svg) < 150_000


def test_one_token_answers_have_no_tpot_figure() -> None:
    assert "TPOT: distribution" not in draw(steady(50, tokens=1))
    assert "TPOT: distribution" in draw(steady(50))


def test_counts_samples_over_the_limit() -> None:
    rows = [*steady(95), *[(0, 11, 950.0 + n, 1200.0 + n, 1300.0 + n) for n in range(5)]]
    near = draw(rows, TTFT=100.0)["TTFT: distribution"]
    assert "5 over the limit" in near.caption and "limit 100 ms" in near.keys[-1].label
    far = draw(rows, TTFT=10_000.0)["TTFT: distribution"]
    assert "0 over the limit" in far.caption
    assert far.keys[-1].label == "limit 10,000 ms, beyond the plot"
    assert "10,000" not in re.sub('aria-label="[^"]*"', "", far.svg)


@pytest.mark.parametrize("title", ["TTFT over time", "Prompt length and TTFT"])
def test_draws_a_near_limit_inside_the_plot(title: str) -> None:
    svg_text = draw(steady(100), TTFT=50.0)[title].svg  # every sample took 20 ms
    (at,) = re.findall(r'd="M [\d.]+ ([\d.]+)[^"]*"[^>]*var\(--limit\)', svg_text)
    grid = re.findall(r'd="M [\d.]+ ([\d.]+)[^"]*"[^>]*var\(--grid\)', svg_text)
    top, bottom = min(map(float, grid)), max(map(float, grid))
    assert top <= float(at) < (top + bottom) / 2


@pytest.mark.parametrize("largest", [0.0012, 9.0, 1_234_567.0])
def test_clips_no_label(largest: float) -> None:
    """Ticks as wide as they get, on both axes."""
    plot = svg.axes("s from the start, when issued", "samples that took longer, %")
    svg.line(plot, [(0.0, 0.0), (largest, largest)], svg.SERIES[0], "a")
    canvas = plot.get_figure(root=True)
    assert canvas is not None
    canvas.draw_without_rendering()  # lays it out
    box = canvas.get_tightbbox()
    assert box.x0 >= 0 and box.x1 <= svg.WIDTH_IN
    assert box.y0 >= 0 and box.y1 <= svg.HEIGHT_IN


def test_draws_no_line_without_a_limit() -> None:
    figure = draw(steady(100))["TTFT: distribution"]
    assert not any("limit" in key.label for key in figure.keys)


def test_spreads_tokens_over_time_and_loses_none() -> None:
    rows: list[Row] = [
        (0, 11, 0.0, 1000.0, 2000.0),
        (0, 1, 0.0, 2500.0, 2500.0),
        (0, 5, 0, 100, 100),
    ]
    columns = sample_plots._columns(log_of(rows))
    edges = np.array([0.0, 0.5, 1.5, 3.0])
    counted = sample_plots._tokens(columns, columns["replica"] == 0, edges)
    assert counted == pytest.approx([5, 1 + 5, 5 + 1])


def test_counts_in_flight_between_admission_and_completion() -> None:
    begin, end = np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 6.0])
    at = np.array([0.5, 1.5, 2.5, 4.0, 5.5])
    assert list(sample_plots._present(begin, end, at)) == [1, 2, 1, 0, 1]


def test_thins_many_samples_and_keeps_the_slowest() -> None:
    values = np.ones(10_000)
    values[123] = 99.0
    chosen = sample_plots._some(values)
    assert len(chosen) <= sample_plots.MAX_DOTS and 123 in chosen
    caption = draw(steady(5000))["TTFT over time"].caption
    assert "of 5,000 samples are drawn" in caption


def test_names_replicas_with_their_nodes() -> None:
    labels = [key.label for key in draw(steady(100))["Throughput"].keys]
    assert labels == ["replica 0 (jw2)", "replica 1 (jw3)", "all"]


def test_draws_queues_and_kv_cache_from_progress() -> None:
    lines = [
        Line(
            t_s=n,
            step="performance",
            phase="performance",
            elapsed_s=float(n),
            queued=n,
            replicas=[
                ReplicaProgress(
                    index=0,
                    in_flight=4,
                    running=3,
                    waiting=1,
                    kv_cache_usage=0.5,
                    output_tokens=10,
                )
            ],
        )
        for n in range(1, 5)
    ]
    drawn = draw([], lines)
    assert list(drawn) == ["Queues", "KV cache"]
    assert [key.label for key in drawn["Queues"].keys] == [
        "dispatcher's queue",
        "waiting in engines",
        "running in engines",
    ]


def test_draws_a_long_line_by_means() -> None:
    plot = svg.axes("x", "y")
    svg.line(plot, [(float(n), float(n % 2)) for n in range(10_000)], svg.SERIES[0], "a")
    (line,) = plot.get_lines()
    assert len(line.get_xdata()) == svg.MAX_POINTS
    assert set(line.get_ydata()) == {0.5}
    svg.line(plot, [(1.0, 2.0), (3.0, 5.0)], svg.SERIES[1], "b")
    assert list(plot.get_lines()[1].get_ydata()) == [2, 5]


def test_draws_power_and_clocks_for_every_meter() -> None:
    readings = [
        Reading(
            unix_s=100.0 + n,
            cpu_energy_j=50.0 * n,
            gpus=[Gpu(index=0, power_w=150.0, sm_clock_mhz=1400)],
        )
        for n in range(20)
    ]
    power, clocks = plots.of_meters({"jw2": readings, "jw3": []}, 105.0, 10.0)
    assert [key.label for key in power.keys] == ["jw2 CPU", "jw2 GPU 0"]
    assert "Not MLPerf Power" in power.caption
    assert clocks.title == "Clocks"
    assert plots.of_meters({"jw2": readings}, 500.0, 10.0) == []


def test_escapes_the_label_for_screen_readers() -> None:
    figure = svg.figure("a < b", 'said "so" & more', svg.axes("x", "y"))
    assert 'aria-label="a &lt; b. said &quot;so&quot; &amp; more"' in figure.svg
