"""The text of logs and records is text in every report: no image, link or tag is made of it."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
import records
from markdown_it import MarkdownIt

from sut.history import campaign_page, page
from sut.history.comparison import Run
from sut.history.row import Row
from sut.report import markdown, render
from sut.results.record import Command, Failure, NodePreflight, PreflightCheck, Record

ATTACKS = (
    "![x](http://evil/a.png)",
    "[x](http://evil)",
    "<img src=http://evil/a.png>",
    "<http://evil>",
    "![x][y] [y]: http://evil",
    "` ![x](http://evil) `` ![x](http://evil)",
    "a | b ![x](http://evil) |",
    "\\![x](http://evil) \\\\[x](http://evil) \\<b>",
    "*a* **b** _c_ ~~d~~ &lt; &#60;",
    "one\r![x](http://evil)\x0b![x](http://evil)\u2028![x](http://evil)",
    "```\n![x](http://evil)",
    "# title",
    "> quote",
)
ALL = "\n".join(ATTACKS)
FOLDER = f"/runs/` {ATTACKS[0]}"
# As GitHub and editors show a report.md: tags are not escaped there.
GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


SHOWN = {"ul", "li", "p", "code", "table", "thead", "tbody", "tr", "th", "td"}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.targets: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("attack", ATTACKS)
def test_any_text_is_shown_as_it_is(attack: str) -> None:
    for shown in (
        markdown.bullets([attack]),
        f"Because of: {markdown.inline(attack)}",
        markdown.table(("head",), [(attack,)]),
    ):
        tags = Tags(GITHUB.render(shown))
        assert tags.found <= SHOWN
        plain = re.sub(r"[`\s]+", "", attack)
        assert plain in re.sub(r"[`\s]+", "", tags.text)
    block = Tags(GITHUB.render(markdown.block(attack)))
    assert block.found == {"pre", "code"}
    assert block.text.strip().splitlines() == attack.splitlines()
    assert Tags(GITHUB.render(f"In {markdown.code(attack)}")).found == {"p", "code"}


def test_code_stays_code() -> None:
    assert markdown.inline("try `a_*b` or *c*") == "try `a_*b` or \\*c\\*"
    assert markdown.inline("max_num_seqs of jw[2-3] < 3 & 4") == "max_num_seqs of jw[2-3] < 3 & 4"


def hostile() -> Record:
    """A record whose every text tries."""
    failure = Failure(code=f"engine` {ATTACKS[0]}", message=f"{ATTACKS[0]}:\n{ALL}\nhint: {ALL}")
    record = records.failed(failure, records.accuracy(40.0))
    check = PreflightCheck(ALL, ok=False, text=ALL)
    environment = msgspec.structs.replace(record.environment, cpu_model=ALL, packages={ALL: ALL})
    plan = msgspec.structs.replace(record.plan, benchmark=ALL, not_official_because=ATTACKS)
    return msgspec.structs.replace(
        record,
        run_id=ATTACKS[0],
        plan=plan,
        environment=environment,
        nodes=(environment,),
        preflight=(NodePreflight(node=ALL, checks=(check,)),),
        command=Command(text=f"```\n{ALL}", folder=f"` {ALL}"),
    )


def assert_loads_nothing(html: str) -> None:
    tags = Tags(html)
    assert "img" not in tags.found and "b" not in tags.found
    assert all(target.startswith(("#", "../", "20")) for target in tags.targets), tags.targets
    assert "![x](http://evil/a.png)" in tags.text  # it is there, as text


def test_a_report_shows_foreign_text_as_text() -> None:
    assert_loads_nothing(GITHUB.render(render.render(hostile(), FOLDER, {}, ALL)))
    assert_loads_nothing(render.render_html(hostile(), FOLDER, {}, {}, ALL))


def test_a_campaigns_page_shows_foreign_text_as_text(tmp_path: Path) -> None:
    record = hostile()
    runs = [Run(name=ALL, record=record, report=f"../x)>{ATTACKS[0]}/report.html")]
    assert_loads_nothing(GITHUB.render(campaign_page.render(ALL, runs)))
    assert_loads_nothing(campaign_page.render_html(ALL, runs))


def test_the_page_of_a_run_root_shows_foreign_text_as_text(tmp_path: Path) -> None:
    row = Row(path="2026", mtime_ns=0, size=0, verdict="FAILED", why=ALL)
    html = page.render(tmp_path, [row], datetime.now(UTC))
    assert "img" not in Tags(html).found and Tags(html).targets == ["2026/record.json"]


def test_a_page_allows_its_own_script_only(tmp_path: Path) -> None:
    html = page.render(tmp_path, [], datetime.now(UTC))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; " in html and "default-src 'none'; " in html
    report = render.render_html(records.completed(), FOLDER, {}, {})
    assert "script-src 'none'; " in report and "<script" not in report


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
@pytest.mark.parametrize(
    ("added", "refused"),
    [("", False), ("<script>1</script>", True), ("<img src=http://127.0.0.1:9/x>", True)],
)
def test_a_browser_follows_the_pages_policy(added: str, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    html = page.render(tmp_path, [], datetime.now(UTC))
    path.write_text(html.replace("</main>", f"{added}</main>"))
    browser = ["chromium", "--headless", "--no-sandbox", "--enable-logging=stderr"]
    shown = subprocess.run(
        [*browser, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=60
    )
    assert "Runs in" in shown.stdout
    assert ("Content Security Policy" in shown.stderr) == refused, shown.stderr
