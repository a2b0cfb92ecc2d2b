"""What a command reports beside its result: errors, hints and warnings, on standard error."""

from __future__ import annotations

import re
import sys

from sut import layout

_LABEL = re.compile(r"(?:error|hint|warning): ")
# What is copied into a shell. A hint has it after a colon, as an option or as its first words.
_IN_HINT = re.compile(r": |(?:^|[\s(])-|=|^(?:sut|pip|less|make) ")
_IN_PROSE = re.compile(r"\bpython -m |: (?:sut|pip|make|less|s(?:run|batch|cancel|control)) ")


def report(text: str) -> None:
    """Print lines that begin with ``error: ``, ``hint: `` or ``warning: ``, and others between them
    such as those of a log.

    On a terminal the former are wrapped to its width, except one that contains a command, so that
    it can be copied. All others are printed as they are.
    """
    width = layout.terminal_width(sys.stderr)
    lines = [part for line in text.split("\n") for part in _wrapped(line, width)]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _wrapped(line: str, width: int | None) -> list[str]:
    label = _LABEL.match(line)
    if width is None or label is None:
        return [line]
    first, text = label[0], line[label.end() :]
    command = _IN_HINT if first == "hint: " else _IN_PROSE
    if command.search(text):
        return [line]
    return layout.wrap(text, width, first, " " * len(first))
