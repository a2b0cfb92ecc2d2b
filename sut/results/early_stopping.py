"""LoadGen's early stopping: how many queries show, with 99% confidence, that a
percentile meets its limit when some of them were over the limit.

If a query exceeds the limit with probability ``1 - percentile``, a run of ``n``
queries with at most ``t`` over it is luck with probability ``P(X <= t)``, X binomial.
A run passes when that is below ``1 - CONFIDENCE``. LoadGen computes the same sum
through a hypergeometric series (early_stopping.cc); a test compares the two.

The sum is written out here: ``statistics`` has no binomial distribution, and scipy costs
a login node 0.26 s an import and 200 MB on disk.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left, bisect_right

CONFIDENCE = 0.99


@functools.cache
def queries_needed(num_over: int, percentile: float) -> int:
    """The smallest run that passes with ``num_over`` queries over the limit.

    459 for the 99th percentile with none over, 662 with one.
    """
    high = 2 * num_over + 1
    while not _passes(high, num_over, percentile):
        high *= 2
    runs = range(num_over, high)
    return num_over + bisect_left(runs, True, key=lambda num: _passes(num, num_over, percentile))


def num_over_limit(total_needed: int, percentile: float) -> int | None:
    """The number of queries over the limit for which LoadGen asks for ``total_needed`` queries;
    None when no number gives exactly that."""
    counts = _counts(total_needed, percentile)
    num = bisect_left(counts, total_needed, key=lambda over: queries_needed(over, percentile))
    return num if queries_needed(num, percentile) == total_needed else None


def num_allowed(num_queries: int, percentile: float) -> int | None:
    """How many of ``num_queries`` may be over a limit; None where there are too few for any."""
    counts = _counts(num_queries, percentile)
    num = bisect_right(counts, num_queries, key=lambda over: queries_needed(over, percentile))
    return num - 1 if num else None


def enough_at(share: float, num_queries: int, percentile: float) -> int | None:
    """How many queries, ``num_queries`` or more, pass with this share over the limit; None where
    no number does."""
    if share >= 1 - percentile:
        return None
    while num_queries <= _MANY:
        needed = queries_needed(math.ceil(share * num_queries), percentile)
        if needed <= num_queries:
            return num_queries
        num_queries = needed
    return None


_MANY = 10_000_000  # queries: more than any run has


def _counts(num_queries: int, percentile: float) -> range:
    """The counts over the limit with which a run of this size may pass: below the mean."""
    return range(math.ceil(num_queries * (1 - percentile)) + 1)


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
