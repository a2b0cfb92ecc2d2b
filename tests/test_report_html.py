"""report.html is one self-contained file, and never costs a run its record."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from cli import ROOT, environment, fast, latest, set_arguments, submit

from sut.report import markdown, publish
from sut.report import page as page_module
from sut.results import record
from sut.rundir import RunDir, write_atomic

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """The content of a page. Asserts that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def page_of(run_dir: RunDir) -> tuple[str, Page]:
    text = run_dir.report_html.read_text()
    return text, Page(text)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A VALID run of every phase, on two replicas."""
    folder = tmp_path_factory.mktemp("run")
    sets = ["site.num_replicas=2", "scenarios.server.min_duration_ms=2000"]
    run = submit(folder, *fast(), "--mode", "all", *set_arguments(sets))
    assert run.returncode == 0, run.stderr
    assert "(report.html has the plots)" in run.stdout
    return RunDir(folder / "runs" / "latest")


def test_page_contains_the_report_and_every_plot(run_dir: RunDir) -> None:
    text, page = page_of(run_dir)
    titles = re.findall(r"<h3>(.*?)</h3>", text)
    assert titles == [
        "TTFT: distribution",
        "TTFT over time",
        "TPOT: distribution",
        "TPOT over time",
        "Throughput",
        "In flight",
        "Prompt length and TTFT",
        "Queues",
        "KV cache",
        "Time by step",
    ]
    assert page.tags.count("svg") == page.tags.count("figcaption") == len(titles)
    headings = [line[3:] for line in run_dir.report.read_text().splitlines() if line[:3] == "## "]
    assert re.findall(r"<h2>(.*?)</h2>", text) == headings
    assert "Not official" in page.text and "Result not verified by MLCommons" in page.text
    assert page.text.index("VALID: replay, server") < page.text.index("In short")
    for limit in ("limit 500 ms", "limit 50 ms"):
        assert limit in page.text


def test_page_is_self_contained(run_dir: RunDir) -> None:
    text, page = page_of(run_dir)
    without_names = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", text)
    assert not re.findall(r"(?:https?:)?//[a-z]", without_names)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text) < 500_000


def test_page_has_colours_for_light_dark_and_print(run_dir: RunDir) -> None:
    text, page = page_of(run_dir)
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert 'name="viewport"' in text
    figures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): #", figures)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert used <= set(re.findall(r"(--[\w-]+):", text))
    # matplotlib names clip paths and markers by their content: equal names are equal things.
    of_sections = [name for name in page.ids if name.isdecimal()]
    assert len(of_sections) == len(set(of_sections)) > 5


def test_key_figures_are_cards(run_dir: RunDir) -> None:
    text, _ = page_of(run_dir)
    cards = re.findall(r'<li class="card ([a-z]*)">(.*?)</li>', text)
    assert len(cards) >= 8 and "<table" not in text.split("<h2>In short")[1].split("<h2>")[0]
    words = {"good": "✓ met", "bad": "✗ not met", "": "</strong>"}
    assert all(words[tone] in card for tone, card in cards)  # more than a colour
    assert {tone for tone, _ in cards} == {"good", ""}
    (ttft,) = (card for _, card in cards if "TTFT, p99" in card)
    assert re.search(r"<strong>[\d.]+ <small>ms</small></strong>.*limit 500 ms", ttft)


def test_headings_are_an_outline_and_plots_have_text(run_dir: RunDir) -> None:
    text, page = page_of(run_dir)
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', text)
    assert len(labels) == page.tags.count("svg") and all(len(label) > 20 for label in labels)
    assert "<th></th>" not in text.split("<h2>Environment")[1]  # a head without names


THEMES = {"light": r":root \{(.*?)\}", "dark": r"prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}"}


@pytest.mark.parametrize("theme", THEMES)
def test_colours_have_contrast(theme: str) -> None:
    """WCAG 2.2, AA: 4.5 for text, 3 for the marks of a plot."""
    css = page_module._STYLE
    found = re.search(THEMES[theme], css, re.DOTALL)
    assert found is not None
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", found[1]))
    for name in ("text", "quiet", "link", "good", "bad", "neutral", "limit"):
        for ground in ("page", "band"):
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for name in (name for name in colors if name.startswith("series-")):
        assert contrast(colors[name], colors["page"]) >= 3, name


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_failed_run_has_a_page_of_its_samples(tmp_path: Path) -> None:
    faults = set_arguments(['engine.replay.faults=["error@150"]'])
    assert submit(tmp_path, *fast(), *faults).returncode == 3
    text, page = page_of(RunDir(tmp_path / "runs/latest"))
    assert page.text.index("FAILED") < page.text.index("request_failed")
    assert "Performance: not finished" in page.text and "are not a result" in page.text
    assert "TTFT: distribution" in re.findall(r"<h3>(.*?)</h3>", text)
    assert "logs/replica-0.log" in page.text


def test_run_that_never_served_has_a_page(tmp_path: Path) -> None:
    submit(tmp_path, *fast(), *set_arguments(['engine.replay.faults=["die-loading"]']))
    _, page = page_of(RunDir(tmp_path / "runs/latest"))
    assert "engine_died" in page.text and page.tags.count("svg") == 1  # the time by step


def test_killed_while_drawing_leaves_its_record(tmp_path: Path) -> None:
    package = tmp_path / "broken" / "matplotlib"
    package.mkdir(parents=True)
    # Whoever looks at the run draws its report again: only the run itself is killed.
    mark = tmp_path / "killed"
    kill = f"import os, pathlib\npathlib.Path({str(mark)!r}).touch(exist_ok=False)"
    (package / "__init__.py").write_text(f"{kill}\nos.kill(os.getppid(), 9)")
    env = environment()
    env["PYTHONPATH"] = f"{package.parent}:{env['PYTHONPATH']}"
    assert "\nVALID" in submit(tmp_path, *fast(), env=env).stdout and mark.exists()
    steps = [step.name for step in latest(tmp_path).timings]
    assert steps[0] == "start" and steps[-1] == "shutdown"  # all that had ended


@pytest.mark.parametrize(
    ("broken", "reported"),
    [
        ("raise RuntimeError('no fonts')", "RuntimeError.*no fonts"),
        ("import os; os.abort()", r"no plots .*exited with code -6"),
        (  # a signal for the step of the run
            "import os, signal; os.kill(os.getpid(), signal.SIGTERM); raise OSError('after it')",
            "OSError.*after it",
        ),
    ],
)
def test_plotting_bug_costs_neither_record_nor_report(
    tmp_path: Path, broken: str, reported: str
) -> None:
    package = tmp_path / "broken" / "matplotlib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(broken)
    env = environment()
    env["PYTHONPATH"] = f"{package.parent}:{env['PYTHONPATH']}"
    run = submit(tmp_path, *fast(), env=env)
    assert run.returncode == 0 and "\nVALID" in run.stdout
    (failure,) = latest(tmp_path).auxiliary_failures
    assert latest(tmp_path).verdict == "VALID" and re.search(reported, failure.cause)
    report = (tmp_path / "runs/latest/report.md").read_text()
    assert report.startswith("# VALID") and re.search(reported, report)
    assert "python -m sut.report" in report


def test_without_matplotlib_a_page_is_kept_or_says_how_to_draw(tmp_path: Path) -> None:
    submit(tmp_path, *fast())
    run_dir = RunDir(tmp_path / "runs/latest")
    package = tmp_path / "without" / "matplotlib"
    package.mkdir(parents=True)
    missing = "raise ModuleNotFoundError('no matplotlib', name='matplotlib')\n"
    (package / "__init__.py").write_text(missing)
    command = [sys.executable, "-m", "sut.report", str(run_dir)]
    env = environment(PYTHONPATH=f"{package.parent}:{ROOT}")
    drawn = run_dir.report_html.read_bytes()
    kept = subprocess.run(command, env=env, capture_output=True, text=True)
    assert kept.returncode == 0 and "kept as it is" in kept.stderr, kept.stderr
    assert run_dir.report_html.read_bytes() == drawn
    run_dir.report_html.unlink()
    plain = subprocess.run(command, env=env, capture_output=True, text=True)
    assert plain.returncode == 3 and "matplotlib is not installed here" in plain.stderr
    how = f".venv/bin/python3 -m sut.report {run_dir}"
    assert how in run_dir.report_html.read_text() and how in run_dir.report.read_text()


def write_again(folder: Path, *, only_html: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut.report", *["--only-html"] * only_html, str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_writes_a_report_again_from_the_runs_files(run_dir: RunDir) -> None:
    before = run_dir.report.read_text(), run_dir.report_html.read_text()
    run_dir.report.unlink()
    run_dir.report_html.unlink()
    again = write_again(run_dir.root)
    assert again.returncode == 0 and again.stdout.strip() == str(run_dir.report_html)
    assert (run_dir.report.read_text(), run_dir.report_html.read_text()) == before


def test_publishes_report_md_once(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that draws the page does not write it."""
    before = run_dir.report.read_text()
    run_dir.report.unlink()
    assert write_again(run_dir.root, only_html=True).returncode == 0
    assert not run_dir.report.exists()
    written: list[Path] = []

    def write(path: Path, text: str) -> None:
        written.append(path)
        write_atomic(path, text)

    monkeypatch.setattr(publish, "write_atomic", write)
    assert publish.publish(record.read(run_dir.root), run_dir) == ()
    assert written == [run_dir.report] and run_dir.report.read_text() == before


def test_damaged_file_is_named_and_costs_only_plots(run_dir: RunDir) -> None:
    path = run_dir.samples("performance")
    whole = path.read_text()
    try:
        path.write_text(whole[: whole.rindex(",", 0, len(whole) // 2)])
        assert write_again(run_dir.root).returncode == 0
        text, page = page_of(run_dir)
        assert "samples.csv" in page.text and "damaged" in page.text
        assert re.findall(r"<h3>(.*?)</h3>", text) == ["Queues", "KV cache", "Time by step"]
    finally:
        path.write_text(whole)


def test_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    refused = write_again(tmp_path)
    assert refused.returncode == 2 and "is not a run directory" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_column_of_numbers_is_right_aligned() -> None:
    rows = [("jw2", "1,000", "-", "5 ms"), ("jw3", "12.5%", "3 ± ?", "2")]
    assert markdown.table(("node", "a", "b", "c"), rows).splitlines()[1] == (
        "| --- | ---: | ---: | --- |"
    )


def test_a_column_without_any_figure_is_left_out() -> None:
    rows = [("jw2", "-", "-"), ("jw3", "-", "2")]
    assert markdown.filled(("node", "energy", "b"), rows) == (
        ("node", "b"),
        [("jw2", "-"), ("jw3", "2")],
    )


def test_the_cells_of_a_wide_table_have_their_names() -> None:
    head = ("rule", "`met`", 'a "b"', "measured", "limit", "unit")
    shown = markdown.to_html(markdown.table(head, [("x", "yes", "c", "1", "2", "s"), ("y",) * 6]))
    names = ["rule", "met", "a &quot;b&quot;", "measured", "limit", "unit"]
    assert re.findall(r'<td data-name="([^"]*)"', shown) == names * 2
    assert shown.count('class="many"') == 1
    long = "a finding of more than forty characters, in a sentence"
    for row, many in ((("x", "yes", "c", "1", "2"), 0), (("x", "yes", long, "1", "2"), 1)):
        assert markdown.to_html(markdown.table(head[:5], [row])).count('class="many"') == many
