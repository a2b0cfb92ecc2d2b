"""The comments of a struct's fields: what :mod:`sut.plan.keys` prints as their meaning."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize


def of_fields(struct: type) -> dict[str, str]:
    """The comment of each field: after it, continued on the next lines, or else the lines before
    it. Empty where the source is not available."""
    try:
        source = textwrap.dedent(inspect.getsource(struct))
    except OSError:
        return {}
    after: dict[int, str] = {}  # by line
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            kind = alone if token.line.lstrip().startswith("#") else after
            kind[token.start[0]] = token.string.removeprefix("#").strip()
    found = {}
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        lines = [after[line] for line in range(node.lineno, _end(node) + 1) if line in after]
        if lines:
            lines += _run_of(alone, _end(node) + 1, 1)
        else:
            lines = _run_of(alone, node.lineno - 1, -1)[::-1]
        if lines:
            found[node.target.id] = " ".join(lines)
    return found


def _end(node: ast.AnnAssign) -> int:
    return node.end_lineno or node.lineno


def _run_of(lines: dict[int, str], line: int, step: int) -> list[str]:
    """Consecutive lines from ``line`` on; removes them, so that each belongs to one field."""
    found = []
    while line in lines:
        found.append(lines.pop(line))
        line += step
    return found
