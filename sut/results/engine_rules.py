"""What MLPerf forbids an engine to do, judged from the arguments it was given."""

from __future__ import annotations

from collections.abc import Sequence

from sut.benchmark import EngineKind
from sut.plan import Plan
from sut.results.rules import Check, check

_PREFIX_CACHING = ("--enable-prefix",)  # vLLM takes an option cut short, too
_SPECULATION = ("--spec", "-sc")


def of_engine(plan: Plan) -> list[Check]:
    """Prefix caching off, speculative decoding off."""
    if plan.engine.kind is EngineKind.REPLAY:
        return []  # it has neither
    given = plan.engine.extra_args
    return [
        _off("prefix_caching", "Prefix caching", _matching(given, _PREFIX_CACHING)),
        _off("speculative_decoding", "Speculative decoding", _matching(given, _SPECULATION)),
    ]


def forbidden(arguments: Sequence[str]) -> list[str]:
    """Those of vLLM's arguments that MLPerf's rules forbid."""
    return _matching(arguments, (*_PREFIX_CACHING, *_SPECULATION))


def _matching(arguments: Sequence[str], prefixes: tuple[str, ...]) -> list[str]:
    # vLLM takes underscores for dashes.
    return [arg for arg in arguments if arg.replace("_", "-").startswith(prefixes)]


def _off(code: str, name: str, arguments: list[str]) -> Check:
    if not arguments:
        return check(code, True, f"{name} was off.")
    said = ", ".join(arguments)
    remedy = f"Take {said} out of engine.extra_args."
    return check(code, False, f"{name} was on ({said}): MLPerf forbids it.", remedy=remedy)
