"""The ``:::MLLOG`` lines of LoadGen's detail log, which are nearly JSON.

LoadGen escapes no string but git's: a backslash, a quote, a newline or a byte that is not UTF-8 is
in the log as it is. So a string is the text between its quotes, and nothing in it is an escape. An
empty list is written as ``]``, an empty map as ``}``, and numbers that are not finite as the C++
library prints them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sut.units import number, quantity

PREFIX = ":::MLLOG "

_BOM = b"\xef\xbb\xbf"
_END = "}}"
_MAX_ENDS = 100  # of an entry: lines that may be its last
_SHAPE = re.compile(
    r'\{"key": "(?P<key>[^"]*)", "value": (?P<value>.*), "time_ms": (?P<time_ms>[^,"]*), '
    r'"namespace": "[^"]*", "event_type": "[^"]*", "metadata": \{"is_error": '
    r"(?P<is_error>true|false), .*\}\}",
    re.DOTALL,
)
_NOT_FINITE = re.compile(r"-?(?:nan|inf|NaN|Infinity)(?:\([a-z]+\))?")  # MSVC: -nan(ind)
_ESCAPED = "loadgen_git_"
_EMPTY: dict[str, list[Any] | dict[str, Any]] = {"]": [], "}": {}}
_WRAPPED_MS = 2**63 / 1e6  # LoadGen prints a negative time as one of 2^64 ns less it


class Entry(msgspec.Struct, frozen=True):
    """``time_ms`` counts from the start of the log; None for what happened before it."""

    key: str
    value: Any
    is_error: bool
    time_ms: float | None = None


class NotWhole(msgspec.Struct, frozen=True):
    """A line that is damaged, truncated or not LoadGen's, and why."""

    problem: str


def entries(content: bytes) -> Iterator[tuple[int, Entry | NotWhole]]:
    """Each entry with its first line, which counts from 1."""
    text = content.removeprefix(_BOM).decode(errors="backslashreplace")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    starts = [place for place, line in enumerate(lines) if line.startswith(PREFIX)]
    ends = [*starts, len(lines)]
    yield from _foreign(lines, 0, ends[0])
    for start, end in zip(starts, ends[1:], strict=True):
        yield from _of_entry(lines, start, end)


def errors(entries: Mapping[int, Entry]) -> tuple[dict[int, Entry], tuple[str, ...]]:
    """The errors by their line, and what contradicts them.

    LoadGen flags errors alone, counts them in ``num_errors``, and gives them keys that begin with
    ``error``. Flags that neither the count nor the key confirms are no errors.
    """
    flagged = {line for line, entry in entries.items() if entry.is_error}
    named = {line for line, entry in entries.items() if entry.key.startswith("error")}
    end, count = next(
        ((line, e.value) for line, e in entries.items() if e.key == "num_errors"), (0, None)
    )
    wrong = named | flagged if count == len(flagged | named) else named
    found = []
    if others := flagged - wrong:
        num = f"{number(len(others))} of {quantity(len(entries), 'lines')}"
        why = "their keys" if count is None else f"their keys and num_errors ({count})"
        found.append(f"is_error is true on {num} that are no errors by {why}")
    if unflagged := wrong - flagged:
        found.append(f"is_error is false on {quantity(len(unflagged), 'errors')}")
    counted = sum(line < end for line in wrong)  # later errors are not in the count
    if isinstance(count, int) and count != counted:
        found.append(f"num_errors is {number(count)}, the log has {quantity(counted, 'errors')}")
    return {line: entries[line] for line in sorted(wrong)}, tuple(found)


def _of_entry(lines: list[str], start: int, end: int) -> Iterator[tuple[int, Entry | NotWhole]]:
    """The entry that begins at ``start``, and the lines before ``end`` that are not part of it."""
    problem, num_ends = None, 0
    for after in range(start + 1, end + 1):
        if after > start + 1 and not lines[after - 1].endswith(_END):
            continue  # a string with newlines goes on
        if (num_ends := num_ends + 1) > _MAX_ENDS:
            break
        try:
            entry = _entry("\n".join(lines[start:after]).removeprefix(PREFIX).rstrip())
        except (ValueError, RecursionError) as error:
            problem = problem or str(error)
            continue
        yield start + 1, entry
        yield from _foreign(lines, after, end)
        return
    yield start + 1, NotWhole(problem or "no end")


def _foreign(lines: list[str], start: int, end: int) -> Iterator[tuple[int, NotWhole]]:
    for place in range(start, end):
        if lines[place].strip():
            yield place + 1, NotWhole(f"no {PREFIX.strip()} at the start of the line")


def _entry(text: str) -> Entry:
    """Raises ValueError for an entry that is not whole."""
    # The end is checked first: otherwise a text without it takes time by the square of its length.
    found = _SHAPE.fullmatch(text) if text.endswith(_END) else None
    if found is None:
        return _as_json(text)
    time_ms = json.loads(found["time_ms"])
    if not isinstance(time_ms, int | float | None):
        raise ValueError("time_ms is not a number")
    key, text = found["key"], found["value"]
    value = _escaped(text) if key.startswith(_ESCAPED) else _value(text)
    return Entry(key, value, found["is_error"] == "true", _time(time_ms))


def _as_json(text: str) -> Entry:
    """An entry with other spaces or another order of keys: other programs' logs are JSON."""
    match json.loads(text):
        case {"key": str(key), "value": value, "metadata": {"is_error": bool(is_error)}, **rest}:
            time_ms = rest.get("time_ms")
            if isinstance(time_ms, int | float | None):
                return Entry(_checked(key), _checked(value), is_error, _time(time_ms))
    raise ValueError("no key, value and metadata")


def _escaped(text: str) -> Any:
    """Versions of LoadGen before 4.0 did not escape git's either."""
    try:
        return json.loads(text)
    except ValueError:
        return _value(text)


def _value(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] == '"':
        if PREFIX in text or "\0" in text:
            raise ValueError("two lines in one, or bytes that are zero")
        return text[1:-1]
    if _NOT_FINITE.fullmatch(text):
        return None
    if text in _EMPTY:
        return _EMPTY[text]
    return _checked(json.loads(text))


def _checked(value: Any) -> Any:
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair is valid JSON, but no record can contain it
    if isinstance(value, int) and abs(value) >= 2**64:
        raise ValueError("a number of more than 64 bits")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _time(time_ms: float | None) -> float | None:
    return time_ms if time_ms is not None and 0 <= time_ms < _WRAPPED_MS else None
