"""The order of a list of runs."""

from __future__ import annotations

from collections.abc import Iterable

from sut.history.row import Row

NEWEST = "created"
LESS_IS_BETTER = frozenset(
    {"ttft_p99_ms", "tpot_p99_ms", "latency_p90_ms", "cost_per_million_tokens"}
)
NUMBERS = ("target_qps", "tokens_per_s", "samples_per_s", *sorted(LESS_IS_BETTER))
WORDS = ("verdict", "benchmark", "scenario", "preset", "nodes", "site", "path")
KEYS = (NEWEST, *WORDS, *NUMBERS)


def ordered(rows: Iterable[Row], key: str, *, reverse: bool = False) -> list[Row]:
    """The rows by one of ``KEYS``: times newest first, words from A to Z, numbers best first. Rows
    of equal keys are newest first, and rows without a value are last, also if reversed."""
    newest = sorted(rows, key=lambda row: (row.created_utc, row.path), reverse=True)
    if key == NEWEST:
        return newest[::-1] if reverse else newest
    known = [row for row in newest if getattr(row, key) not in (None, "")]
    unknown = [row for row in newest if getattr(row, key) in (None, "")]
    high_first = key in NUMBERS and key not in LESS_IS_BETTER
    known.sort(key=lambda row: getattr(row, key), reverse=high_first != reverse)
    return known + unknown
