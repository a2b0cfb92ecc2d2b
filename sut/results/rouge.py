"""ROUGE as MLCommons' reference computes it, in as many processes as this one has cores.

rouge_score with its stemmer, on texts split into one sentence a line by nltk's punkt. A pair of
texts of 300 tokens takes 34 ms of a core. Scores do not depend on the number of processes.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, NamedTuple

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SHARE = 200  # pairs that are worth a process, which takes 2 s to start
MOST = 16  # processes of 0.1 GB


class Scored(NamedTuple):
    """F-measures by :data:`NAMES` of each pair of texts, and the characters of the split answers
    together."""

    measures: list[list[float]]
    num_characters: int


def score(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """The mean F-measures times 100, rounded to 4 digits, and gen_len. Requires
    :func:`sut.inputs.wheels.use_nltk_data`. Raises ValueError for lists that are empty or differ
    in length.
    """
    if not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    pairs = list(zip(predictions, references, strict=True))
    num = max(1, min(len(pairs) // SHARE, len(os.sched_getaffinity(0)), MOST))
    scored = one_by_one(pairs) if num == 1 else in_processes(pairs, num)
    means = {
        name: round(100 * math.fsum(values) / len(pairs), 4)
        for name, values in zip(NAMES, zip(*scored.measures, strict=True), strict=True)
    }
    return means | {"gen_len": float(scored.num_characters)}


def in_processes(pairs: Sequence[tuple[str, str]], num: int) -> Scored:
    """A process that fails or cannot start, as for want of memory, has its share scored here."""
    shares = [pairs[len(pairs) * i // num : len(pairs) * (i + 1) // num] for i in range(num)]
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(share)) for share in shares]
        parts = [scored() for scored in workers]
    measures = [values for part in parts for values in part.measures]
    return Scored(measures, sum(part.num_characters for part in parts))


@contextmanager
def _worker(pairs: Sequence[tuple[str, str]]) -> Iterator[Callable[[], Scored]]:
    """A process that scores ``pairs``. In a session of its own: Ctrl-C is for its parent. Its input
    and output are in memory: /tmp in a container has 64 MiB."""
    with _memory() as content, _memory() as output:
        content.write(json.dumps(pairs).encode())
        content.seek(0)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(os.getpid())],
                stdin=content,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            yield lambda: one_by_one(pairs)
            return

        def scored() -> Scored:
            if process.wait() != 0:
                return one_by_one(pairs)
            output.seek(0)
            return Scored(*json.load(output))

        try:
            yield scored
        finally:
            process.kill()
            process.wait()


def _memory() -> BinaryIO:
    return open(os.memfd_create("pairs"), "w+b")


def one_by_one(pairs: Sequence[tuple[str, str]], parent: int | None = None) -> Scored:
    """Scored in this process, which exits once ``parent`` is no longer its parent."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer, measures, num_characters = RougeScorer(NAMES, use_stemmer=True), [], 0
    for texts in pairs:
        if parent not in (None, os.getppid()):
            sys.exit(1)
        prediction, reference = map(_one_sentence_a_line, texts)
        found = scorer.score(reference, prediction)
        measures.append([float(found[name].fmeasure) for name in NAMES])
        num_characters += len(prediction)
    return Scored(measures, num_characters)


def _one_sentence_a_line(text: str) -> str:
    import nltk

    return "\n".join(nltk.sent_tokenize(text.strip()))


def main() -> None:
    from sut.inputs import wheels

    wheels.use_nltk_data()
    print(json.dumps(one_by_one(json.load(sys.stdin), parent=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
