"""The HTML page of a run root: every run, with a link to its report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from sut.history.listing import COST, LATENCIES, has_cost
from sut.history.row import Row
from sut.plan.hostlist import compact
from sut.report.markdown import SCROLLING
from sut.report.page import frame
from sut.results.messaging import UNVERIFIED
from sut.units import exact, number

HEAD = (
    *("created (UTC)", "verdict", "benchmark", "scenario", "preset", "nodes"),
    *("target_qps", "tokens/s", *LATENCIES, "why", "run"),
)
MORE_IS_BETTER = ("target_qps", "tokens/s")
NUMBERS = (*MORE_IS_BETTER, *LATENCIES, COST)  # the last where a price is known
NEWEST_FIRST = "created (UTC)"  # how the page begins
LINKED = ("report.html", "report.md")  # the first that exists, else the record
RECORD = "record.json"


def render(root: Path, rows: Sequence[Row], now: datetime) -> str:
    """The page for ``rows``. Links lead to files under ``root``."""
    title = f"Runs in {root}"
    heads = (*HEAD, COST) if has_cost(rows) else HEAD
    foot = f"{number(len(rows))} runs, {now:%Y-%m-%d %H:%M} UTC. {UNVERIFIED}"
    body = f"""\
<h1>{escape(title)}</h1>
<p class="filter"><label>Show only rows with <input type="search"></label>
<span role="status"></span></p>
{SCROLLING}<table>
<thead><tr>{"".join(map(_heading, heads))}</tr></thead>
<tbody>
{chr(10).join(_line(root, row, heads) for row in rows)}
</tbody>
</table></div>
<p>{escape(foot)}</p>"""
    return frame(title, body, style=f"{_STYLE}{_NAMES}\n}}\n", script=_SCRIPT)


def _line(root: Path, row: Row, heads: Sequence[str]) -> str:
    reports = [name for name in LINKED if (root / row.path / name).exists()]
    file = reports[0] if reports else RECORD
    created = row.created_utc.replace("T", " ").removesuffix("Z") or row.path
    report = f'<a href="{escape(quote(f"{row.path}/{file}"))}">{escape(created)}</a>'
    numbers = [row.target_qps, row.tokens_per_s, row.ttft_p99_ms, row.tpot_p99_ms]
    numbers += [row.cost_per_million_tokens] * (COST in heads)
    cells = (
        report,
        f'<b class="{escape(row.verdict.lower())}">{escape(row.headline)}</b>',
        escape(row.benchmark),
        escape(row.scenario),
        escape(row.preset),
        escape(compact(row.nodes.split(","))),
        exact(row.target_qps),
        *map(number, numbers[1:4]),
        escape(row.why),
        escape(row.path),
        *map(number, numbers[4:]),
    )
    sorted_by = dict(zip(NUMBERS, numbers, strict=False))
    columns = zip(heads, cells, strict=True)
    return f"<tr>{''.join(_cell(name, text, sorted_by.get(name)) for name, text in columns)}</tr>"


def _heading(name: str) -> str:
    """A button that sorts the rows by this column; the first click puts the best first."""
    descending = name in (*MORE_IS_BETTER, NEWEST_FIRST)
    now = "descending" if name == NEWEST_FIRST else "none"
    return (
        f'<th scope="col"{_class(name)} aria-sort="{now}"'
        f' data-first="{"descending" if descending else "ascending"}">'
        f'<button type="button">{escape(name)}</button></th>'
    )


def _cell(name: str, text: str, exact: float | None) -> str:
    """``exact`` is the number that ``text`` rounds, by which rows are sorted."""
    value = "" if exact is None else f' data-value="{exact!r}"'
    return f"<td{_class(name)}{value}>{text}</td>"


def _class(name: str) -> str:
    if name in NUMBERS:
        return ' class="n"'
    return ' class="text"' if name in ("why", "run") else ""


_STYLE = """
main { max-width: none; }
td.text { overflow-wrap: anywhere; min-width: 11rem; }
input { font: inherit; max-width: 100%; }
.n { text-align: right; }
th button {
  font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit;
}
th button:hover { text-decoration: underline; }
th button::after { content: "\\a0\\2195"; }
th[aria-sort="ascending"] button::after { content: "\\a0\\2191"; }
th[aria-sort="descending"] button::after { content: "\\a0\\2193"; }
th:is([aria-sort="ascending"], [aria-sort="descending"]) { color: var(--text); }
.valid { color: var(--good); }
.invalid, .failed, .truncated, .unreadable { color: var(--bad); }
tr[hidden] { display: none; }
@media print { .filter, th button::after { display: none; } }
@media screen and (max-width: 90rem) {
  table { font-size: .85rem; }
  th, td { padding-right: .6rem; }
  td:not(.text) { white-space: normal; }
  td.text { min-width: 7rem; }
  td:first-child { min-width: 6rem; }
}
@media screen and (max-width: 70rem) {
  table, thead, tbody { display: block; }
  thead tr { display: flex; flex-wrap: wrap; gap: 0 .8rem; }
  th, td { border: 0; padding: .1rem 0; }
  tbody tr:not([hidden]) {
    display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 0 1rem;
    padding: .7rem 0; border-top: 1px solid var(--grid);
  }
  td, td.n, td.text { text-align: left; min-width: 0; }
  td:first-child, td.text { grid-column: 1 / -1; }
  td:empty { display: none; }
  td::before { color: var(--quiet); }
"""
_NAMES = "\n".join(
    f'  td:nth-child({n})::before {{ content: "{name} "; }}'
    for n, name in enumerate((*HEAD, COST), 1)
)

_SCRIPT = """\
const body = document.querySelector("tbody");
const rows = [...body.rows];
const status = document.querySelector("[role=status]");
document.querySelector("input").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\\s+/);
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
  const shown = rows.filter(row => !row.hidden).length;
  status.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} runs`;
});

const headings = [...document.querySelectorAll("th")];
const opposite = {ascending: "descending", descending: "ascending"};
for (const heading of headings) {
  heading.firstChild.addEventListener("click", () => {
    const order = opposite[heading.getAttribute("aria-sort")] ?? heading.dataset.first;
    for (const each of headings) each.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", order);
    sortBy(heading.cellIndex, heading.classList.contains("n"), order === "ascending" ? 1 : -1);
  });
}

// Rows without a value are last in both orders.
function sortBy(column, isNumber, sign) {
  const value = row => {
    const cell = row.cells[column];
    return isNumber ? parseFloat(cell.dataset.value) : cell.textContent;
  };
  const unknown = each => each === "" || Number.isNaN(each);
  rows.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
    return sign * (a < b ? -1 : a > b ? 1 : 0);
  });
  body.append(...rows);
}
"""
