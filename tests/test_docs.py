"""The form of the Markdown pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli import ROOT

WIDTH = 120
PAGES = [
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "csrc/**/*.md", "benchmarks/**/*.md", "tests/*.md")
    for page in sorted(ROOT.glob(pattern))
]


def prose(page: Path) -> list[tuple[int, str]]:
    """Its lines with their numbers, without tables and blocks of code."""
    found, in_code = [], False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.lstrip().startswith("|"):
            found.append((number, line))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_prose_is_over_120_characters(page: str) -> None:
    """But one of a single word, such as a link, which cannot be broken."""
    long = [
        number
        for number, line in prose(ROOT / page)
        if len(line) > WIDTH and len(re.sub(r"\[[^]]*\]", "", line).split()) > 1
    ]
    assert long == []
