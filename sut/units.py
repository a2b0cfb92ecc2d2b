"""Numbers for people: three significant digits, thousands separators, a unit."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """``0.0126``, ``50.4``, ``2,000``, ``13,368``; a dash for None."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def exact(value: float | None) -> str:
    """A number that somebody chose, e.g. a load, with all its digits: ``12.345``, ``2,000``."""
    return "-" if value is None else f"{value:,.12g}"


def quantity(value: float | None, unit: str) -> str:
    """``50.4 ms``; a unit that is a word is singular for one: ``1 query``."""
    if value is None or not unit:
        return number(value)
    return f"{number(value)} {_SINGULAR.get(unit, unit) if value == 1 else unit}"


def against(measured: float | None, limit: float | None, unit: str) -> str:
    """``measured`` with as many digits as distinguish it from ``limit``."""
    if measured is None or measured == limit or number(measured) != number(limit):
        return quantity(measured, unit)
    texts = (f"{measured:,.{digits}g}" for digits in range(4, 13))
    differing = (t for t in texts if "e" not in t and float(t.replace(",", "")) != limit)
    return f"{next(differing, repr(measured))} {unit}".strip()


def from_limit(measured: float | None, limit: float) -> str:
    """How far ``measured`` is from ``limit``, e.g. ``25% over``; empty where it has no meaning."""
    if measured is None or limit <= 0 or measured < 0:
        return ""
    share = abs(measured - limit) / limit
    if share == 0:
        return "exactly at the limit"
    return f"{number(100 * share)}% {'over' if measured > limit else 'under'}"


_SINGULAR = {
    "queries": "query",
    "samples": "sample",
    "errors": "error",
    "probes": "probe",
    "trials": "trial",
    "replicas": "replica",
    "nodes": "node",
    "cores": "core",
    "GPUs": "GPU",
    "characters": "character",
    "tokens": "token",
    "answers": "answer",
    "runs": "run",
    "rows": "row",
    "entries": "entry",
    "minutes": "minute",
    "seconds": "second",
}
