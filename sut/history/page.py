"""The HTML page of a run root: every run, with a link to its report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from sut.history.row import Row
from sut.report.page import frame
from sut.results.messaging import UNVERIFIED
from sut.units import number

HEAD = (
    "created (UTC)",
    "verdict",
    "benchmark",
    "scenario",
    "preset",
    "nodes",
    "tokens/s",
    "TTFT p99, ms",
    "TPOT p99, ms",
    "why",
    "run",
)
NUMBERS = ("tokens/s", "TTFT p99, ms", "TPOT p99, ms")
LINKED = ("report.html", "report.md")  # the first that exists, else the record
RECORD = "record.json"


def render(root: Path, rows: Sequence[Row], now: datetime) -> str:
    """The page for ``rows``. Links lead to files under ``root``."""
    title = f"Runs in {root}"
    foot = f"{number(len(rows))} runs, {now:%Y-%m-%d %H:%M} UTC. {UNVERIFIED}"
    body = f"""\
<h1>{escape(title)}</h1>
<input type="search" placeholder="show only rows with ..." aria-label="show only rows with">
<div class="wide"><table>
<thead><tr>{"".join(f"<th{_class(name)}>{escape(name)}</th>" for name in HEAD)}</tr></thead>
<tbody>
{chr(10).join(_line(root, row) for row in rows)}
</tbody>
</table></div>
<p>{escape(foot)}</p>"""
    return frame(title, body, style=_STYLE, script=_SEARCH)


def _line(root: Path, row: Row) -> str:
    reports = [name for name in LINKED if (root / row.path / name).exists()]
    file = reports[0] if reports else RECORD
    created = row.created_utc.replace("T", " ").removesuffix("Z") or row.path
    report = f'<a href="{escape(quote(f"{row.path}/{file}"))}">{escape(created)}</a>'
    cells = (
        report,
        f'<b class="{escape(row.verdict.lower())}">{escape(row.verdict)}</b>',
        escape(row.benchmark),
        escape(row.scenario),
        escape(row.preset),
        escape(row.nodes.replace(",", ", ")),
        number(row.tokens_per_s),
        number(row.ttft_p99_ms),
        number(row.tpot_p99_ms),
        escape(row.why),
        escape(row.path),
    )
    columns = zip(HEAD, cells, strict=True)
    return f"<tr>{''.join(f'<td{_class(name)}>{cell}</td>' for name, cell in columns)}</tr>"


def _class(name: str) -> str:
    return ' class="n"' if name in NUMBERS else ""


_STYLE = """
main { max-width: none; }
input { font: inherit; width: min(100%, 24rem); margin-top: 1rem; }
.n { text-align: right; }
.valid { color: var(--good); }
.invalid, .failed, .truncated, .unreadable { color: var(--bad); }
@media print { input { display: none; } }
"""

_SEARCH = """\
const rows = [...document.querySelectorAll("tbody tr")];
document.querySelector("input").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\\s+/);
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
});
"""
