"""Slurm's hostlists: ``jw[2-3]``, ``n[01-10,15]``, ``r[0-1]n[0-3]``, ``jw2,jw3``.

Read without Slurm, so that they mean the same on any machine. Every list of nodes is printed in
this form, which is also that of squeue and sacct.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

MAX_NAMES = 65_536  # Slurm's own limit for the nodes of a cluster
MAX_NAME_CHARS = 255  # more than DNS allows

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ITEM = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])*")  # up to a comma outside of brackets
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
# By the last number of a name.
_NUMBERED = re.compile(rf"(.*?)(\d{{1,{MAX_NAME_CHARS}}})(\D*)", re.ASCII)


class HostlistError(ValueError):
    """Why a text is not a hostlist."""


def expand(text: str) -> list[str]:
    """The names in a hostlist, in its order. Raises HostlistError, also for a duplicate name."""
    names: list[str] = []
    for item in _items(text):
        names += _names(item, MAX_NAMES - len(names))
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise HostlistError(f"duplicate node {name}")
        seen.add(name)
    return names


def compact(names: Iterable[str]) -> str:
    """The hostlist of ``names``, in their order. Names with equal text around their last number
    are merged: ``jw[2-3]``; any others are separated by commas."""
    text = []
    alike = itertools.groupby(map(_numbered, names), lambda n: (n.around, n.number != ""))
    for ((prefix, suffix), _), group in alike:
        ranges = _ranges([name.number for name in group])
        one = len(ranges) == 1 and "-" not in ranges[0]
        inner = ranges[0] if one else f"[{','.join(ranges)}]"
        text.append(f"{prefix}{inner}{suffix}")
    return ",".join(text)


def _items(text: str) -> Iterator[str]:
    """The parts of ``text`` between commas outside of brackets."""
    position = 0
    while True:
        found = _ITEM.match(text, position)
        assert found is not None
        position = found.end()
        if position < len(text) and text[position] != ",":
            raise HostlistError(f"unmatched {text[position]}")
        item = found[0].strip()
        if not item:
            raise HostlistError("empty name between commas" if "," in text else "no name")
        yield item
        if position == len(text):
            return
        position += 1


def _names(item: str, most: int) -> list[str]:
    """The names of one item, at most ``most``."""
    choices: list[list[str]] = []
    count = 1
    # Text and the content of brackets in turns.
    for i, text in enumerate(_BRACKETS.split(item)):
        choices.append([text] if i % 2 == 0 else _numbers(text, most // count))
        count *= len(choices[-1])
    if count > most:
        raise HostlistError(f"more than {MAX_NAMES:,} nodes")
    if sum(max(map(len, words)) for words in choices) > MAX_NAME_CHARS:
        raise HostlistError(f"a node name of more than {MAX_NAME_CHARS} characters")
    names = ["".join(words) for words in itertools.product(*choices)]
    if not _NAME.fullmatch(names[0]):
        raise HostlistError(f"{names[0]!r} is not a node name")
    return names


def _numbers(brackets: str, most: int) -> list[str]:
    """The numbers in brackets as text, at most ``most``; a range has the width of its first
    number."""
    numbers: list[str] = []
    for each in brackets.split(","):
        found = _RANGE.fullmatch(each.strip())
        if found is None:
            raise HostlistError(f"'{each}' in [{brackets}] is not a number or a range")
        if max(map(len, found.groups(""))) > MAX_NAME_CHARS:
            raise HostlistError(f"a number of more than {MAX_NAME_CHARS} digits")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise HostlistError(f"range {each} in [{brackets}] runs backwards")
        if last - first >= most - len(numbers):
            raise HostlistError(f"more than {MAX_NAMES:,} nodes")
        numbers += [f"{number:0{len(found[1])}d}" for number in range(first, last + 1)]
    return numbers


class _Name(NamedTuple):
    """A name: its last number, empty if it has none, and the text around it."""

    around: tuple[str, str]
    number: str


def _numbered(name: str) -> _Name:
    found = _NUMBERED.fullmatch(name)
    return _Name((found[1], found[3]), found[2]) if found else _Name((name, ""), "")


def _ranges(numbers: Sequence[str]) -> list[str]:
    """``2-4`` for consecutive numbers of one width."""
    runs: list[list[str]] = []
    for number in numbers:
        if runs and number and number == _after(runs[-1][0], runs[-1][-1]):
            runs[-1].append(number)
        else:
            runs.append([number])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def _after(first: str, last: str) -> str:
    """The number after ``last`` in a range that starts with ``first``."""
    return f"{int(last) + 1:0{len(first)}d}" if last else ""
