"""Engine options that MLPerf's rules forbid."""

from __future__ import annotations

from collections.abc import Sequence


def forbidden(arguments: Sequence[str]) -> list[str]:
    return [*prefix_caching(arguments), *speculation(arguments)]


def prefix_caching(arguments: Sequence[str]) -> list[str]:
    return _matching(arguments, "--enable-prefix")


def speculation(arguments: Sequence[str]) -> list[str]:
    return _matching(arguments, "--spec", "-sc")


def _matching(arguments: Sequence[str], *prefixes: str) -> list[str]:
    # vLLM accepts abbreviated options, and underscores in place of dashes.
    return [arg for arg in arguments if arg.replace("_", "-").startswith(prefixes)]
