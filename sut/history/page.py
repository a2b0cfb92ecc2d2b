"""The HTML page of a run root: every run, with a link to its report. It needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from sut.history.row import Row
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
REPORTS = ("report.html", "report.md")  # what is linked, the first that is there
RECORD = "record.json"


def render(root: Path, rows: Sequence[Row], now: datetime) -> str:
    """The page for ``rows``; links lead to files under ``root``."""
    head = "".join(f"<th{_class(name)}>{escape(name)}</th>" for name in HEAD)
    body = "\n".join(_line(root, row) for row in rows)
    return _PAGE.substitute(
        title=escape(f"Runs in {root}"),
        head=head,
        body=body,
        foot=escape(f"{number(len(rows))} runs, {now:%Y-%m-%d %H:%M} UTC. {UNVERIFIED}"),
    )


def _line(root: Path, row: Row) -> str:
    there = [name for name in REPORTS if (root / row.path / name).exists()]
    file = there[0] if there else RECORD
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


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; }
h1 { font-size: 1.2rem; overflow-wrap: anywhere; }
input { font: inherit; width: min(100%, 24rem); box-sizing: border-box; }
div { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.valid { color: var(--good); }
.invalid, .failed, .truncated, .unreadable { color: var(--bad); }
@media print { input { display: none; } }
</style>
<h1>$title</h1>
<input type="search" placeholder="show only rows with ..." aria-label="show only rows with">
<div><table>
<thead><tr>$head</tr></thead>
<tbody>
$body
</tbody>
</table></div>
<p>$foot</p>
<script>
const rows = [...document.querySelectorAll("tbody tr")];
document.querySelector("input").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\\s+/);
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
});
</script>
</html>
""")
