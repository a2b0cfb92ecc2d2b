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
    """The same for so many nodes like the plan's at this rate; None without a price."""
    price = per_node_hour(plan)
    return None if price is None else price * num_nodes / 3600 / tokens_per_s * 1e6


def per_node_hour(plan: Plan) -> float | None:
    """The mean price of the plan's nodes, or of those that Slurm chooses from. None where the price
    of one is unknown."""
    nodes = plan.candidates or plan.nodes
    prices = [plan.node_prices.get(node.name, plan.price_per_node_hour) for node in nodes]
    known = [price for price in prices if price is not None]
    return sum(known) / len(known) if known and len(known) == len(prices) else None
