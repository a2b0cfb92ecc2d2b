"""LoadGen's early stopping: how many queries show, with 99% confidence, that a
percentile holds, when some number of them were over the limit.

If a query is over the limit with probability ``1 - percentile``, a run of ``n``
queries with at most ``t`` over it is luck with probability ``P(X <= t)``, X binomial.
A run passes when that is below ``1 - CONFIDENCE``. LoadGen computes the same sum
through a hypergeometric series (early_stopping.cc); a test holds the two together.
"""

from __future__ import annotations

import functools
import math

CONFIDENCE = 0.99


@functools.cache
def queries_needed(num_over: int, percentile: float) -> int:
    """The smallest run that passes with ``num_over`` queries over the limit.

    459 for the 99th percentile with none over, 662 with one.
    """
    low, high = num_over, 2 * num_over + 1
    while not _passes(high, num_over, percentile):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(middle, num_over, percentile) else (middle, high)
    return high


def num_over_limit(total_needed: int, percentile: float) -> int | None:
    """How many queries were over the limit, from the size of run LoadGen asks for.

    None when no number of them gives exactly ``total_needed``.
    """
    low, high = 0, 1
    while queries_needed(high, percentile) < total_needed:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        if queries_needed(middle, percentile) < total_needed:
            low = middle + 1
        else:
            high = middle
    return low if queries_needed(low, percentile) == total_needed else None


def _passes(num_queries: int, num_over: int, percentile: float) -> bool:
    """P(X <= num_over) < 1 - CONFIDENCE, for X ~ Binomial(num_queries, 1 - percentile)."""
    p, q = 1 - percentile, percentile
    if num_over >= num_queries * p:
        return False  # as many as expected or more: no evidence at all
    log_term = (
        math.lgamma(num_queries + 1)
        - math.lgamma(num_over + 1)
        - math.lgamma(num_queries - num_over + 1)
        + num_over * math.log(p)
        + (num_queries - num_over) * math.log(q)
    )
    term = total = math.exp(log_term)
    for x in range(num_over, 0, -1):  # downwards the terms shrink: below the mean
        term *= x / (num_queries - x + 1) * q / p
        total += term
        if term < 1e-17 * total:
            break
    return total < 1 - CONFIDENCE
