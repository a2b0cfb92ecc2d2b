"""What tokens cost: the price of a run's nodes over the tokens that they generate."""

from __future__ import annotations

from sut.plan.plan import Mode, Plan
from sut.results.measures import measure
from sut.results.mllog import DetailLog


def per_million_tokens(plan: Plan, mode: Mode, log: DetailLog) -> float | None:
    """The cost of a million output tokens at LoadGen's tokens/s, in the site's currency. Every node
    of the plan is paid for. None for other tests than performance, and without a price or a rate.
    """
    rate = measure(log.values).tokens_per_s
    if mode is not Mode.PERFORMANCE or not rate:
        return None
    return at_rate(plan, len(plan.nodes), rate)


def at_rate(plan: Plan, num_nodes: float, tokens_per_s: float) -> float | None:
    """The same for so many nodes at this rate; None without a price."""
    if plan.price_per_node_hour is None:
        return None
    return plan.price_per_node_hour * num_nodes / 3600 / tokens_per_s * 1e6
