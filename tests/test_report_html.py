"""report.html is one file with everything in it, and never costs a run its record."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cli import environment, fast, latest, set_arguments, submit

from sut.rundir import RunDir

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a page holds, and whether every tag is closed in turn."""

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
    """A VALID run of two replicas, of performance and accuracy."""
    folder = tmp_path_factory.mktemp("run")
    sets = ["site.num_replicas=2", "scenarios.server.min_duration_ms=2000"]
    run = submit(folder, *fast(), "--mode", "all", *set_arguments(sets))
    assert run.returncode == 0, run.stderr
    assert "(report.html has the plots)" in run.stdout
    return RunDir(folder / "runs" / "latest")


def test_the_page_holds_the_report_and_every_plot(run_dir: RunDir) -> None:
    text, page = page_of(run_dir)
    titles = re.findall(r"<h3>(.*?)</h3>", text)
    assert titles == [
        "TTFT: distribution",
        "TTFT against time",
        "TPOT: distribution",
        "TPOT against time",
        "Throughput",
        "In flight",
        "Prompt length and TTFT",
        "Queues",
        "KV cache",
    ]
    assert page.tags.count("svg") == page.tags.count("figcaption") == len(titles)
    headings = [line[3:] for line in run_dir.report.read_text().splitlines() if line[:3] == "## "]
    assert re.findall(r"<h2>(.*?)</h2>", text) == headings
    assert "Not official" in page.text and "Result not verified by MLCommons" in page.text
    assert page.text.index("VALID: replay, server") < page.text.index("In short")
    for limit in ("limit 500 ms", "limit 50 ms"):
        assert limit in page.text


def test_the_page_needs_nothing_from_anywhere(run_dir: RunDir) -> None:
    text, page = page_of(run_dir)
    without_names = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", text)
    assert not re.findall(r"(?:https?:)?//[a-z]", without_names)
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text) < 500_000


def test_the_page_takes_its_colours_from_light_dark_or_paper(run_dir: RunDir) -> None:
    text, page = page_of(run_dir)
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert 'name="viewport"' in text
    figures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): #", figures)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert used <= set(re.findall(r"(--[\w-]+):", text))
    # A figure's clip paths and markers are named by what they are: equal names are equal things.
    of_sections = [name for name in page.ids if name.isdecimal()]
    assert len(of_sections) == len(set(of_sections)) > 5


def test_a_run_that_failed_has_a_page_of_what_it_did(tmp_path: Path) -> None:
    faults = set_arguments(['engine.replay.faults=["error@150"]'])
    assert submit(tmp_path, *fast(), *faults).returncode == 3
    text, page = page_of(RunDir(tmp_path / "runs/latest"))
    assert page.text.index("FAILED") < page.text.index("request_failed")
    assert "Performance: not finished" in page.text and "is no result" in page.text
    assert "TTFT: distribution" in re.findall(r"<h3>(.*?)</h3>", text)
    assert "logs/replica-0.log" in page.text


def test_a_run_that_never_served_has_a_page(tmp_path: Path) -> None:
    submit(tmp_path, *fast(), *set_arguments(['engine.replay.faults=["die-loading"]']))
    _, page = page_of(RunDir(tmp_path / "runs/latest"))
    assert "engine_died" in page.text and "svg" not in page.tags


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("raise RuntimeError('no fonts')", "RuntimeError.*no fonts"),
        ("import os; os.abort()", "report.html could not be drawn"),
        (  # a signal that is meant for the run's step
            "import os, signal; os.kill(os.getpid(), signal.SIGTERM); raise OSError('after it')",
            "OSError.*after it",
        ),
    ],
)
def test_a_bug_in_plotting_leaves_the_record_and_the_report_and_says_so(
    tmp_path: Path, broken: str, told: str
) -> None:
    package = tmp_path / "broken" / "matplotlib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(broken)
    env = environment()
    env["PYTHONPATH"] = f"{package.parent}:{env['PYTHONPATH']}"
    run = submit(tmp_path, *fast(), env=env)
    assert run.returncode == 0 and "\nVALID" in run.stdout
    assert latest(tmp_path).verdict == "VALID"
    report = (tmp_path / "runs/latest/report.md").read_text()
    assert report.startswith("# VALID") and re.search(told, report)
    assert "python -m sut.report" in report


def write_again(*paths: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut.report", *map(str, paths)],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_report_is_written_again_from_what_the_run_left(run_dir: RunDir) -> None:
    before = run_dir.report.read_text(), run_dir.report_html.read_text()
    run_dir.report.unlink()
    run_dir.report_html.unlink()
    again = write_again(run_dir.root)
    assert again.returncode == 0 and again.stdout.strip() == str(run_dir.report_html)
    assert (run_dir.report.read_text(), run_dir.report_html.read_text()) == before


def test_a_damaged_file_is_named_and_costs_only_its_plots(run_dir: RunDir) -> None:
    path = run_dir.samples("performance")
    whole = path.read_text()
    try:
        path.write_text(whole[: len(whole) // 2])
        assert write_again(run_dir.root).returncode == 0
        text, page = page_of(run_dir)
        assert "samples.csv" in page.text and "damaged" in page.text
        assert re.findall(r"<h3>(.*?)</h3>", text) == ["Queues", "KV cache"]
    finally:
        path.write_text(whole)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    refused = write_again(tmp_path)
    assert refused.returncode == 2 and "record.json" in refused.stderr
    assert "Traceback" not in refused.stderr
