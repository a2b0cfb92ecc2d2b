"""The list of inputs from real systems, tests/README.md, is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from cli import ROOT

FOLDER = ROOT / "tests"
LINE = re.compile(r"(.+): `(test_\w+\.py)::(test_\w+)`")


class Line(NamedTuple):
    """A line of a kind: its inputs, literal ones in backticks, and their test."""

    inputs: str
    file: str
    test: str

    @property
    def literals(self) -> list[str]:
        return re.findall(r"`([^`]+)`", self.inputs)


def kinds(text: str) -> Iterator[tuple[str, list[Line]]]:
    """Each list of the page, with the sentence before it."""
    for paragraph, items in re.findall(r"\n([^\n#-]+:)\n\n((?:- .+\n(?:  .+\n)*)+)", text):
        whole = items.replace("\n  ", " ")
        found = [LINE.fullmatch(item.removeprefix("- ")) for item in whole.splitlines()]
        assert all(found), whole
        yield paragraph, [Line(*match.groups()) for match in found if match]


KINDS = dict(kinds((FOLDER / "README.md").read_text()))


def source(line: Line) -> str:
    """The test's file without its other tests."""
    text = (FOLDER / line.file).read_text()
    functions = [each for each in ast.parse(text).body if isinstance(each, ast.FunctionDef)]
    tests = [each for each in functions if each.name.startswith("test_")]
    lines = text.splitlines()
    for other in reversed(tests):
        if other.name != line.test:
            first = min(part.lineno for part in (other, *other.decorator_list))
            del lines[first - 1 : other.end_lineno]
    return "\n".join(lines)


def test_the_page_has_every_kind() -> None:
    assert len(KINDS) == 15
    lists = (FOLDER / "README.md").read_text().count("\n- ")
    assert sum(map(len, KINDS.values())) == lists


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_two_further_members(kind: str) -> None:
    _, *others = KINDS[kind]
    assert sum(max(1, len(line.literals)) for line in others) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_has_its_test(kind: str) -> None:
    for line in KINDS[kind]:
        found = source(line)
        assert f"def {line.test}(" in found, line
        assert [each for each in line.literals if each not in found] == [], line
