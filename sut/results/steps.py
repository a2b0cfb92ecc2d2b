"""An engine's steps, from the frames of outputs that the dispatcher received. Pure.

A frame shows how many sequences the step decoded and which prompts it finished. The prefill tokens
that a step computed of a prompt that finishes later are inferred: vLLM fills a step up to
``max_num_batched_tokens``, first come first served, so a prompt that was waiting when the step
began and did not finish in it got all that was left.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

Columns = Mapping[str, Sequence[int]]


class EngineStep(NamedTuple):
    """One step of an engine: its duration and its work. ``context_tokens`` are those of the
    decoding sequences before the step."""

    duration_us: float
    num_decoding: int
    num_prefill_tokens: int
    context_tokens: int


class _Prompt(NamedTuple):
    admitted_ns: int
    tokens: int


def of_dispatcher(
    steps: Columns, samples: Columns, max_num_batched_tokens: int
) -> list[EngineStep]:
    """The steps of all replicas, each from the end of the one before it.

    ``steps`` and ``samples`` are the columns of ``Dispatcher.steps()`` and
    ``Dispatcher.samples()``. A step without a decoding sequence is left out: the engine may have
    been idle before it.
    """
    rows = defaultdict[int, list[int]](list)
    for row, replica in enumerate(steps["replica"]):
        rows[replica].append(row)
    prompts = _prompts(samples)
    return [
        step
        for replica, of_replica in sorted(rows.items())
        for step in _of_replica(steps, of_replica, prompts[replica], max_num_batched_tokens)
    ]


def _prompts(samples: Columns) -> dict[int, dict[int, list[_Prompt]]]:
    """The prompts by replica and by the time at which the frame that finished them arrived."""
    found: dict[int, dict[int, list[_Prompt]]] = defaultdict(lambda: defaultdict(list))
    for replica, first_ns, admitted_ns, tokens in zip(
        samples["replica"],
        samples["first_token_ns"],
        samples["admitted_ns"],
        samples["prompt_tokens"],
        strict=True,
    ):
        found[replica][first_ns].append(_Prompt(admitted_ns, tokens))
    return found


def _of_replica(
    steps: Columns,
    rows: Sequence[int],
    prompts: Mapping[int, list[_Prompt]],
    max_num_batched_tokens: int,
) -> Iterator[EngineStep]:
    prefill = _prefill_tokens(steps, rows, prompts, max_num_batched_tokens)
    clock = "engine_ns" if all(steps["engine_ns"][row] for row in rows) else "received_ns"
    for before, row, tokens in zip(rows, rows[1:], prefill[1:], strict=False):
        duration_ns = steps[clock][row] - steps[clock][before]
        if steps["num_decoding"][row] and duration_ns > 0:
            yield EngineStep(
                duration_ns / 1e3, steps["num_decoding"][row], tokens, steps["context_tokens"][row]
            )


def _prefill_tokens(
    steps: Columns,
    rows: Sequence[int],
    prompts: Mapping[int, list[_Prompt]],
    max_num_batched_tokens: int,
) -> list[int]:
    """How many prompt tokens each step computed."""
    later = deque(_in_order(steps, rows, prompts))
    computed_before = 0  # of the next prompt that finishes
    found, began_ns = [], -1
    for row in rows:
        room = max_num_batched_tokens - steps["num_decoding"][row]
        # Of samples that are not complete, only the sum is known.
        tokens = steps["prompt_tokens"][row]
        for _ in range(len(prompts.get(steps["received_ns"][row], ()))):
            later.popleft()
        tokens -= computed_before if steps["num_prompts"][row] else 0
        computed_before = 0 if steps["num_prompts"][row] else computed_before
        left = room - tokens
        if later and later[0].admitted_ns < began_ns and left > 0:
            waiting = later[0].tokens - computed_before
            if left < waiting:  # else it would have finished: it was waiting for a place
                tokens += left
                computed_before += left
        found.append(max(0, tokens))
        began_ns = steps["received_ns"][row]
    return found


def _in_order(
    steps: Columns, rows: Iterable[int], prompts: Mapping[int, list[_Prompt]]
) -> Iterator[_Prompt]:
    """The prompts in the order in which they finish; in a step, in order of admission."""
    for row in rows:
        yield from sorted(prompts.get(steps["received_ns"][row], ()))
