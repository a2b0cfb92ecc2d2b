"""Engine options that MLPerf's rules forbid."""

from __future__ import annotations

from collections.abc import Sequence

_PREFIX_CACHING = ("--enable-prefix",)  # vLLM accepts abbreviated options
_SPECULATION = ("--spec", "-sc")


def forbidden(arguments: Sequence[str]) -> list[str]:
    """The arguments of vLLM that MLPerf's rules forbid."""
    return [*prefix_caching(arguments), *speculation(arguments)]


def prefix_caching(arguments: Sequence[str]) -> list[str]:
    return _matching(arguments, _PREFIX_CACHING)


def speculation(arguments: Sequence[str]) -> list[str]:
    return _matching(arguments, _SPECULATION)


def _matching(arguments: Sequence[str], prefixes: tuple[str, ...]) -> list[str]:
    # vLLM accepts underscores in place of dashes.
    return [arg for arg in arguments if arg.replace("_", "-").startswith(prefixes)]
