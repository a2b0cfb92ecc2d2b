"""sut.history: lists match the records, whatever happens to the index."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import environment, submit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loadgen_logs import smallest_valid, ten_queries
from plans import plan_of
from records import PLAN, completed, failed, performance, rewrite

from sut.cluster import liveness
from sut.errors import InputError
from sut.history import __main__ as history
from sut.history import index
from sut.history import page as page_module
from sut.history.index import FILE_NAME, Index
from sut.history.listing import to_table
from sut.history.row import Row
from sut.history.sorting import ordered
from sut.launch import newrun
from sut.plan.plan import Mode
from sut.results import record
from sut.results.offered import Batch, OfferedLoad
from sut.results.record import Attempt
from sut.rundir import RunDir

TOKENS_KEY = "result_completed_tokens_per_second"
VALID = completed(performance(smallest_valid()))
INVALID = completed(performance(ten_queries()))
BATCH = Batch(in_flight=8, num_samples=80, samples_per_s=9.0, ttft_ms=50.0, tpot_ms=20.0)
FAILED = failed(record.Failure(code="engine_died", message="exit 1", replica=1))


def add(root: Path, name: str, result: record.Record, created: str, **plan: Any) -> Path:
    plan_of_it = msgspec.structs.replace(PLAN, **plan)
    result = msgspec.structs.replace(
        result,
        run_id=name,
        created_utc=created,
        plan=plan_of_it,
        plan_digest=plan_of_it.digest(),
    )
    return record.write(result, RunDir(root / name))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    add(root, "first", VALID, "2026-11-01T10:00:00Z")
    add(root, "second", INVALID, "2026-11-02T10:00:00Z", benchmark="llama3.1-8b")
    add(root / "nightly", "third", FAILED, "2026-11-03T10:00:00Z")
    return root


def listed(root: Path, *arguments: str) -> list[str]:
    shown = run(root, "--json", *arguments)
    assert shown.returncode == 0, shown.stderr
    return [row["path"] for row in json.loads(shown.stdout)]


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut.history", "--root", str(root), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def paths(root: Path) -> list[str]:
    with Index(root) as opened:
        return [row.path for row in opened.rows()]


def test_lists_runs_newest_first(root: Path) -> None:
    with Index(root) as opened:
        third, second, first = opened.rows()
    assert [third.path, second.path, first.path] == ["nightly/third", "second", "first"]
    assert [third.verdict, second.verdict, first.verdict] == ["FAILED", "INVALID", "VALID"]
    assert third.why == "engine_died" and "early_stopping" in second.why and first.why == ""
    assert first.nodes == "jw2,jw3" and first.tokens_per_s and first.ttft_p99_ms is not None
    assert third.tokens_per_s is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--verdict", "valid"], ["first"]),
        (["--benchmark", "llama3.1-8b"], ["second"]),
        (["--scenario", "server"], ["nightly/third", "second", "first"]),
        (["--scenario", "offline"], []),
        (["--since", "2026-11-02"], ["nightly/third", "second"]),
        (["--since", "2026-11-02T11:00"], ["nightly/third"]),
        (["--node", "jw3"], ["second", "first"]),
        (["--node", "jw"], []),
        (["--node", "jw_"], []),
        (["--limit", "2"], ["nightly/third", "second"]),
        (["--plan", PLAN.digest()[:12]], ["nightly/third", "first"]),
    ],
)
def test_filters_runs(root: Path, arguments: list[str], expected: list[str]) -> None:
    assert listed(root, *arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sort", "created"], ["nightly/third", "second", "first"]),
        (["--sort", "created", "--reverse"], ["first", "second", "nightly/third"]),
        (["--sort", "benchmark"], ["second", "nightly/third", "first"]),
        (["--sort", "target_qps"], ["first", "nightly/third", "second"]),
        (["--sort", "target_qps", "--reverse"], ["nightly/third", "second", "first"]),
        (["--sort", "target_qps", "--limit", "1"], ["first"]),
    ],
)
def test_sorts_runs(root: Path, arguments: list[str], expected: list[str]) -> None:
    assert listed(root, *arguments) == expected


def test_sorts_latencies_from_the_lowest() -> None:
    def row(path: str, ttft: float | None) -> Row:
        return Row(path=path, mtime_ns=0, size=0, ttft_p99_ms=ttft)

    rows = [row("a", 30.0), row("b", None), row("c", 20.0)]
    assert [each.path for each in ordered(rows, "ttft_p99_ms")] == ["c", "a", "b"]


def test_refuses_an_unknown_order_with_the_choices(root: Path) -> None:
    shown = run(root, "--sort", "tokens")
    assert shown.returncode == 2 and "tokens_per_s" in shown.stderr


def test_csv_has_every_column_unrounded(root: Path) -> None:
    shown = run(root, "--csv", "--limit", "0")
    assert shown.returncode == 0, shown.stderr
    third, second, first = csv.DictReader(io.StringIO(shown.stdout))
    assert first["path"] == "first" and float(first["target_qps"]) == 1000
    assert float(first["tokens_per_s"]) == VALID.phases[0].loadgen[TOKENS_KEY]
    assert "early_stopping" in second["why"] and second["benchmark"] == "llama3.1-8b"
    assert third["tokens_per_s"] == "" and third["verdict"] == "FAILED"


def test_names_the_load_of_each_run(root: Path) -> None:
    (row,) = json.loads(run(root, "--json", "--verdict", "valid").stdout)
    assert row["target_qps"] == 1000
    head, line, *_ = run(root, "--verdict", "valid").stdout.splitlines()
    assert "target_qps" in head and " 1,000 " in line


@pytest.mark.parametrize("width", [10, 40, 66, 80, 100])
def test_a_narrow_list_breaks_no_name(root: Path, width: int) -> None:
    with Index(root) as opened:
        rows = opened.rows()
    text = to_table(rows, width)
    longest = max(map(len, text.split()))
    assert max(map(len, text.splitlines())) <= max(width, longest + 20)  # a figure with its name
    words = text.replace(",", " ").split()
    for row in rows:
        assert row.path in words
        assert row.verdict == "VALID" or set(row.why.replace(",", " ").split()) <= set(words)


def test_a_wide_list_has_one_line_a_run(root: Path) -> None:
    with Index(root) as opened:
        rows = opened.rows()
    for width in (None, 400):
        assert len(to_table(rows, width).splitlines()) == 1 + len(rows)


def test_filters_without_a_match_are_named(root: Path) -> None:
    shown = run(root, "--benchmark", "gpt", "--since", "2026-11-02")
    assert shown.returncode == 0
    assert "no run matches --benchmark gpt --since 2026-11-02" in shown.stderr
    assert "benchmark of the runs here: llama3.1-8b, smollm2-135m-news" in shown.stderr
    as_json = run(root, "--json", "--benchmark", "gpt")
    assert json.loads(as_json.stdout) == [] and "no run matches" in as_json.stderr
    assert run(root, "--benchmark", "llama3.1-8b").stderr == ""


def test_an_empty_run_root_has_a_next_step(tmp_path: Path) -> None:
    shown = run(tmp_path)
    assert shown.returncode == 0 and f"no runs ({tmp_path})\nhint: start a run: " in shown.stderr
    assert json.loads(run(tmp_path, "--json").stdout) == []


def test_a_page_that_cannot_be_written_names_another_form(root: Path) -> None:
    (root / "index.html").mkdir()
    shown = run(root, "--html")
    assert shown.returncode == 2 and "cannot write the page" in shown.stderr
    assert "hint: " in shown.stderr and "sut.history --csv >runs.csv" in shown.stderr


def test_the_list_counts_what_it_leaves_out(root: Path, tmp_path: Path) -> None:
    newrun.create(plan_of("replay"), tmp_path / "new").root.rename(root / "new")
    killed = newrun.create(plan_of("replay"), tmp_path / "new")
    submitter = msgspec.structs.replace(liveness.this_process(), started=0)
    killed.submitter.write_bytes(msgspec.json.encode(submitter))
    killed.root.rename(root / "killed")
    (root / "damaged").mkdir()
    (root / "damaged" / "plan.json").write_text("{}")
    shown = run(root, "--verdict", "INVALID").stdout
    assert "second" in shown and "early_stopping" in shown and "third" not in shown
    assert "1 of 3 runs with a record" in shown and "not verified by MLCommons" in shown
    damaged, ended = (
        "damaged (its plan is not readable)",
        "killed (lost: the command that created it ended before submitting it)",
    )
    assert f"3 without a record: {damaged}, {ended}, new (starting)" in shown


def test_notices_added_changed_and_removed_records(root: Path) -> None:
    assert len(paths(root)) == 3
    add(root, "fourth", VALID, "2026-11-04T10:00:00Z")
    assert paths(root)[0] == "fourth"
    add(root, "fourth", INVALID, "2026-11-04T10:00:00Z")
    with Index(root) as opened:
        assert opened.rows()[0].verdict == "INVALID"
    (root / "fourth" / "record.json").unlink()
    assert len(paths(root)) == 3


def test_reads_an_unchanged_record_once(root: Path) -> None:
    paths(root)
    path = root / "first" / "record.json"
    stat = path.stat()
    path.write_bytes(b" " * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with Index(root) as opened:
        assert opened.rows("path = ?", ["first"])[0].verdict == "VALID"
    os.utime(path)
    with Index(root) as opened:
        assert opened.rows("path = ?", ["first"])[0].verdict == "UNREADABLE"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True),
    cut=st.booleans(),
    noise=st.binary(min_size=8, max_size=8),
)
def test_rebuilds_an_index_damaged_anywhere(
    root: Path, place: float, cut: bool, noise: bytes
) -> None:
    with Index(root) as opened:
        expected = opened.rows()
    file = root / FILE_NAME
    content = bytearray(file.read_bytes())
    where = int(place * len(content))
    content[where:] = b"" if cut else noise + content[where + 8 :]
    file.write_bytes(content)
    with Index(root) as opened:
        assert opened.rows() == expected


def test_rebuilds_an_index_of_another_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths(root)
    monkeypatch.setattr(index, "VERSION", index.VERSION + 1)
    assert len(paths(root)) == 3


def test_killed_readers_leave_a_whole_index(root: Path) -> None:
    chance = random.Random(1)
    for number in range(25):
        add(root, f"more-{number}", VALID, f"2026-11-04T10:{number:02}:00Z")
        readers = [
            subprocess.Popen(
                [sys.executable, "-m", "sut.history", "--root", str(root)],
                env=environment(),
                stdout=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        time.sleep(chance.uniform(0.1, 0.35))
        for reader in readers:
            reader.send_signal(signal.SIGKILL)
            reader.wait()
        if (root / FILE_NAME).exists():
            assert whole(root / FILE_NAME)
    assert len(paths(root)) == 28 and whole(root / FILE_NAME)


def whole(path: Path) -> bool:
    """Whether the file is an index that would not be discarded."""
    database = index._load(path)
    try:
        return int(database.execute("SELECT count(*) FROM runs").fetchone()[0]) > 0
    finally:
        database.close()


def test_removes_files_of_killed_readers(root: Path) -> None:
    old, fresh = root / f".{FILE_NAME}.old", root / f".{FILE_NAME}.fresh"
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    paths(root)
    assert not old.exists() and fresh.exists()


def test_lists_runs_without_a_writable_index(root: Path) -> None:
    (root / FILE_NAME).mkdir()  # not writable as a file
    assert listed(root) == ["nightly/third", "second", "first"]


def test_lists_a_damaged_record_as_unreadable(root: Path) -> None:
    (root / "cut").mkdir()
    (root / "cut" / "record.json").write_bytes((root / "first/record.json").read_bytes()[:-9])
    with Index(root) as opened:
        damaged = opened.rows("path = ?", ["cut"])[0]
        assert damaged.verdict == "UNREADABLE" and damaged.why
        assert opened.count() == 4
    assert run(root).returncode == 0


def test_lists_a_record_of_a_later_version(root: Path) -> None:
    path = root / "first" / "record.json"
    document = json.loads(path.read_text())
    document["schema_version"] = 99
    document["plan"]["news"] = "from the future"
    rewrite(path, document)
    assert listed(root, "--verdict", "VALID") == ["first"]


def test_a_record_between_phases_is_unfinished(root: Path) -> None:
    interim = record.Failure(code=record.INTERIM, message="it continues")
    add(root, "going", failed(interim, performance(smallest_valid())), "2026-11-05T10:00:00Z")
    assert listed(root, "--verdict", "unfinished") == ["going"]


@pytest.mark.parametrize(("settings_qps", "chosen"), [(4.5, None), ("auto", 4.5), ("auto", None)])
def test_a_run_without_results_has_its_nodes_and_its_load(
    root: Path, settings_qps: float | str, chosen: float | None
) -> None:
    attempt = Attempt(
        job_id="7", restart=0, nodes=("jw3", "jw2"), started_utc="2026-11-05T10:00:00Z"
    )
    load = chosen and OfferedLoad(target_qps=chosen, full=BATCH, small=BATCH, reason="measured")
    lost = msgspec.structs.replace(FAILED, attempts=(attempt,), load=load or None)
    asked = msgspec.structs.replace(PLAN.loadgen_settings, target_qps=settings_qps)
    add(root, "lost", lost, "2026-11-05T10:00:00Z", loadgen_settings=asked)
    row = next(row for row in Index(root).rows() if row.path == "lost")
    assert row.nodes == "jw2,jw3"
    assert row.target_qps == (4.5 if 4.5 in (settings_qps, chosen) else None)


def test_a_run_without_a_verdict_can_be_filtered(root: Path) -> None:
    checked = completed(verdict=None)  # as sut.doctor leaves it
    add(root, "checked", checked, "2026-11-05T10:00:00Z", mode=Mode.PREFLIGHT)
    assert listed(root, "--verdict", "completed") == ["checked"]


def test_lists_a_real_run_where_it_was_submitted(tmp_path: Path) -> None:
    submit(tmp_path, "--config", "replay", "--preset", "quick")
    shown = subprocess.run(
        [sys.executable, "-m", "sut.history"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0 and "INVALID" in shown.stdout and "quick" in shown.stdout
    assert sorted(p.name for p in (tmp_path / "runs").iterdir() if not p.is_dir()) == [FILE_NAME]


class Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value or "" for name, value in attrs if name in ("href", "src")]


def test_the_page_links_every_report(root: Path) -> None:
    add(root, 'a <b> & "c"', VALID, "2026-11-06T10:00:00Z")
    (root / "first" / "report.md").touch()
    (root / "second" / "report.md").touch()
    (root / "second" / "report.html").touch()
    shown = run(root, "--html")
    assert shown.stdout.strip() == str(root / "index.html")
    page = (root / "index.html").read_text()
    links = Links()
    links.feed(page)
    assert links.hrefs == [
        "a%20%3Cb%3E%20%26%20%22c%22/record.json",
        "nightly/third/record.json",
        "second/report.html",
        "first/report.md",
    ]
    assert "<b>" not in page.replace('<b class="', "") and "not verified by MLCommons" in page
    assert "http:" not in page and "https:" not in page and page.count("<tr>") == 5


def test_the_page_sorts_by_its_headings(root: Path) -> None:
    assert run(root, "--html").returncode == 0
    page = (root / "index.html").read_text()
    headings = re.findall(r'<th ([^>]*)><button type="button">([^<]*)</button></th>', page)
    names = [name for _, name in headings]
    assert names == list(page_module.HEAD) and "target_qps" in names
    orders = {name: attributes for attributes, name in headings}
    assert 'aria-sort="descending"' in orders.pop("created (UTC)")  # as the rows are
    assert all('aria-sort="none"' in attributes for attributes in orders.values())
    assert 'data-first="descending"' in orders["tokens/s"]
    assert 'data-first="ascending"' in orders["TTFT p99, ms"]
    # On a phone each row is a list, with the name of its column beside each value.
    assert (
        f'td:nth-child({names.index("tokens/s") + 1})::before {{ content: "tokens/s "; }}' in page
    )
    rows = re.findall(r"<tr>(<td.*)</tr>", page)
    exact = re.findall(r'<td class="n"(?: data-value="([^"]*)")?>', rows[2])
    assert float(exact[0]) == 1000 and all(exact)  # the first run
    failed = re.findall(r'<td class="n"(?: data-value="([^"]*)")?>', rows[0])
    assert float(failed[0]) == 50 and not any(failed[1:])  # only what it was to be offered
    assert '<td class="text">engine_died</td>' in rows[0]


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
@pytest.mark.parametrize("width", [1440, 1180, 1121, 1120, 700])
def test_the_page_does_not_scroll_sideways(width: int, root: Path) -> None:
    name = "20261124T193054Z-smollm2-135m-news-interactive-official"
    add(root, name, INVALID, "2026-11-24T19:30:54Z")
    assert run(root, "--html").returncode == 0
    page = root / "index.html"
    measured = "const [w] = document.getElementsByClassName('wide'); document.title ="
    measured += " `${w.scrollWidth - w.clientWidth} of ${innerWidth}`"
    text = re.sub("script-src [^;]+", "script-src 'unsafe-inline'", page.read_text())
    page.write_text(text.replace("</body>", f"<script>{measured}</script></body>"))
    browser = ["chromium", "--headless", "--no-sandbox", f"--window-size={width},800"]
    shown = subprocess.run(
        [*browser, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60
    )
    assert f"<title>0 of {width}</title>" in shown.stdout, shown.stderr


# What a browser gives the page's script: a table of two columns, the second one of numbers.
BROWSER = """
const cell = text => ({textContent: text, dataset: {value: text === "-" ? undefined : text}});
const made = [["b", "9"], ["a", "-"], ["c", "10"]].map(
  texts => ({cells: texts.map(cell), textContent: texts.join(" "), hidden: false}));
const clicks = [];
const th = ["ascending", "descending"].map((first, cellIndex) => ({
  order: "none", cellIndex, dataset: {first},
  getAttribute() { return this.order; },
  setAttribute(_, order) { this.order = order; },
  classList: {contains: name => name === "n" && cellIndex === 1},
  firstChild: {addEventListener: (_, listener) => clicks.push(listener)},
}));
let order = made, search;
const found = {
  tbody: {rows: made, append: (...rows) => { order = rows; }},
  input: {addEventListener: (_, listener) => { search = listener; }},
  "[role=status]": {textContent: ""},
};
const document = {querySelector: name => found[name], querySelectorAll: () => th};
const shown = () => order.filter(row => !row.hidden).map(row => row.cells[0].textContent).join("");
"""
CLICKS = """
const seen = [];
for (const column of [1, 1, 0, 0]) { clicks[column](); seen.push([shown(), th[column].order]); }
seen.push([th[1].order]);
search({target: {value: "C 1"}});
seen.push([shown(), found["[role=status]"].textContent]);
console.log(JSON.stringify(seen));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script in node")
def test_a_click_on_a_heading_sorts_the_page() -> None:
    script = BROWSER + page_module._SCRIPT + CLICKS
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["cba", "descending"],  # 10, 9, unknown
        ["bca", "ascending"],
        ["abc", "ascending"],
        ["cba", "descending"],
        ["none"],
        ["c", "1 of 3 runs"],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24", "2026-11-24T00:00:00Z"),
        ("2026-11-24T02:30", "2026-11-24T02:30:00Z"),
        ("2026-11-24T02:30+01:00", "2026-11-24T01:30:00Z"),
        ("36h", "2026-11-22T22:00:00Z"),
        ("2w", "2026-11-10T10:00:00Z"),
    ],
)
def test_reads_times_and_ages(text: str, expected: str) -> None:
    assert history.since(text, datetime(2026, 11, 24, 10, tzinfo=UTC)) == expected


def test_refuses_an_invalid_time_with_examples(root: Path) -> None:
    shown = run(root, "--since", "yesterday")
    assert shown.returncode == 2 and "--since yesterday" in shown.stderr and "7d" in shown.stderr


def test_refuses_a_root_without_runs(root: Path) -> None:
    missing = run(root / "nowhere")
    assert missing.returncode == 2 and "--site NAME, --root DIR" in missing.stderr
    (root / "first" / "plan.json").touch()
    with pytest.raises(InputError, match="this is one run"):
        Index(root / "first")


@pytest.mark.parametrize("command", ["history --root ROOT --limit 0", "submit --dry-run"])
def test_a_closed_pipe_is_no_error(root: Path, command: str) -> None:
    command = f"{sys.executable} -m sut.{command.replace('ROOT', str(root))} | true"
    piped = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment(), capture_output=True, text=True
    )
    assert piped.returncode == 141 and piped.stderr == ""


def test_a_login_node_imports_nothing_heavy() -> None:
    code = (
        "import sys, sut.watch, sut.history, sut.compare\n"
        "print({'numpy', 'torch', 'vllm', 'matplotlib', 'sut._core'} & set(sys.modules))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert shown.stdout == "set()\n", shown.stderr
