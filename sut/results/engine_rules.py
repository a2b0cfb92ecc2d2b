"""What MLPerf forbids an engine to do, judged from the arguments it was given."""

from __future__ import annotations

from sut.plan import forbidden
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan
from sut.results.rules import Check, check


def of_engine(plan: Plan) -> list[Check]:
    """Prefix caching off, speculative decoding off."""
    if plan.engine.kind is EngineKind.REPLAY:
        return []  # it has neither
    given = plan.engine.extra_args
    return [
        _off("prefix_caching", "Prefix caching", forbidden.prefix_caching(given)),
        _off("speculative_decoding", "Speculative decoding", forbidden.speculation(given)),
    ]


def _off(code: str, name: str, arguments: list[str]) -> Check:
    if not arguments:
        return check(code, True, f"{name} was off.")
    said = ", ".join(arguments)
    remedy = f"Take {said} out of engine.extra_args."
    return check(code, False, f"{name} was on ({said}): MLPerf forbids it.", remedy=remedy)
