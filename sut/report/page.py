"""HTML pages in one file, for any screen and for print: a frame, and reports as sections."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Sequence

import msgspec

from sut.report import markdown


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a figure's legend. ``color`` is CSS; ``mark`` is solid, dashed, dotted or dot."""

    label: str
    color: str
    mark: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """``svg`` is an ``<svg>`` element; ``caption`` is one sentence."""

    title: str
    caption: str
    svg: str
    keys: tuple[Key, ...] = ()


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A key figure: large on a page, a row of a table in Markdown. ``met`` is None without a
    ``limit``."""

    label: str
    value: str
    unit: str = ""
    limit: str = ""
    met: bool | None = None


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a report. The title of the first section is the title of the page. ``measured`` is
    the heading of the cards' figures."""

    title: str
    text: str = ""  # Markdown
    figures: tuple[Figure, ...] = ()
    cards: tuple[Card, ...] = ()
    measured: str = "measured"


def to_markdown(sections: Sequence[Section]) -> str:
    """The sections without their figures."""
    parts = []
    for n, section in enumerate(sections):
        heading = f"{'##' if n else '#'} {markdown.inline(section.title)}"
        parts += [heading, _card_table(section), section.text]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(sections: Sequence[Section], tone: str) -> str:
    """The sections as a page. ``tone``, the title's colour, is ``good``, ``bad`` or ``neutral``."""
    first, *others = sections
    links = "".join(f'<a href="#{n}">{html.escape(s.title)}</a>' for n, s in enumerate(others))
    body = [
        f'<header class="{tone}"><h1>{html.escape(first.title)}</h1></header>',
        markdown.to_html(first.text),
        f'<nav aria-label="sections">{links}</nav>',
        _figures(first.figures, "plots"),
    ]
    for n, section in enumerate(others):
        body += [
            f'<section id="{n}"><h2>{html.escape(section.title)}</h2>',
            _card_list(section),
            markdown.to_html(section.text),
            _figures(section.figures, f"plots-{n}"),
            "</section>",
        ]
    return frame(first.title, "\n".join(body))


def frame(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A self-contained page. ``body`` is HTML; ``style`` is CSS after the shared rules."""
    return _PAGE.format(
        policy=_POLICY.format(script=_source(f"\n{script}") if script else "'none'"),
        title=html.escape(title),
        style=_STYLE + style,
        body=body,
        script=f"<script>\n{script}</script>\n" if script else "",
    )


def _source(script: str) -> str:
    """A script by its hash, for the page's policy."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _card_table(section: Section) -> str:
    rows = [
        (
            card.label,
            f"{card.value} {card.unit}".rstrip(),
            card.limit,
            "" if card.met is None else "yes" if card.met else markdown.Markup("**no**"),
        )
        for card in section.cards
    ]
    return markdown.table(("", section.measured, "limit", "met"), rows)


def _card_list(section: Section) -> str:
    if not section.cards:
        return ""
    cards = "\n".join(map(_card, section.cards))
    measured = html.escape(section.measured.capitalize())
    return f'<p class="measured">{measured}:</p>\n<ul class="cards">\n{cards}\n</ul>'


def _card(card: Card) -> str:
    """Whether the limit is met is a word, a sign and a colour."""
    tone, sign = {True: ("good", "✓ met"), False: ("bad", "✗ not met"), None: ("", "")}[card.met]
    unit = f" <small>{html.escape(card.unit)}</small>" if card.unit else ""
    limit = f'<span class="limit">limit {html.escape(card.limit)}</span>' if card.limit else ""
    met = f' <span class="met">{sign}</span>' if sign else ""
    return (
        f'<li class="card {tone}"><span class="label">{html.escape(card.label)}</span> '
        f"<strong>{html.escape(card.value)}{unit}</strong> {limit}{met}</li>"
    )


def _figures(figures: Sequence[Figure], name: str) -> str:
    """``name`` is the fragment of a link to them."""
    if not figures:
        return ""
    drawn = "\n".join(
        f"<figure>\n<h3>{html.escape(figure.title)}</h3>\n{_legend(figure.keys)}{figure.svg}\n"
        f"<figcaption>{html.escape(figure.caption)}</figcaption>\n</figure>"
        for figure in figures
    )
    return f'<div class="figures" id="{name}">\n{drawn}\n</div>'


def _legend(keys: Sequence[Key]) -> str:
    entries = "".join(
        f'<span class="{key.mark}" style="--color: {key.color}">{html.escape(key.label)}</span>'
        for key in keys
    )
    return f'<p class="legend">{entries}</p>\n' if keys else ""


# A page loads nothing from anywhere, and runs no script but its own.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {script}; "
    "base-uri 'none'; form-action 'none'"
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
{script}</body>
</html>
"""

_STYLE = (importlib.resources.files(__package__) / "page.css").read_text()
