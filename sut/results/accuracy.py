"""Accuracy: the scores of the token ids LoadGen logged in accuracy mode.

As MLCommons' reference scores Llama-3.1-8B: the first answer of each sample, decoded without
special tokens; the scores of :mod:`sut.results.rouge`; gen_len is the number of characters of all
answers, split into sentences. tokens_per_sample, for a benchmark with a gate on it, is the mean
number of token ids of an answer, rounded to one digit as in MLCommons' reference of llama2-70b.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.errors import InputError, RunError
from sut.plan.benchmark import DatasetKind, Generation
from sut.plan.plan import Plan
from sut.results import answers as logged
from sut.results import rouge

PROGRAM_OUTPUT = "scorer.txt"
# At the end of a line: 'exact_match': 83.130, also in a dict that was printed.
_EXACT_MATCH = re.compile(r"""['"]exact_match['"]:\s*([0-9]+(?:\.[0-9]+)?)[\s}]*$""", re.MULTILINE)
TOKENS_PER_SAMPLE = "tokens_per_sample"


def score_phase(
    log_dir: Path,
    plan: Plan,
    *,
    num_samples: int,
    prompts: Sequence[Sequence[int]],
    references: Sequence[str],
    model_path: Path | None,
) -> dict[str, float]:
    """The scores of an accuracy phase of ``plan`` over the first ``num_samples`` samples;
    ``prompts`` and ``references`` are the data set's.

    Raises InputError for a damaged log, RunError for samples missing or answered twice.
    """
    answers = read_answers(log_dir, num_samples)
    if plan.accuracy is not None and plan.accuracy.program:
        return of_program(log_dir) | _tokens_per_sample(answers, plan)
    if plan.dataset.kind is DatasetKind.SYNTHETIC:
        return {"exact_match": exact_match(answers, prompts, plan.generation)}
    if model_path is None:
        raise InputError(f"{log_dir}: a model folder is needed to decode the answers")
    from sut.inputs import wheels

    wheels.use_nltk_data()
    order = sorted(answers)
    texts = decode([answers[index] for index in order], model_path)
    scores = rouge.score(texts, [references[index] for index in order])
    return scores | _tokens_per_sample(answers, plan)


def _tokens_per_sample(answers: Mapping[int, Sequence[int]], plan: Plan) -> dict[str, float]:
    """Of a benchmark with a gate on it."""
    if plan.accuracy is None or TOKENS_PER_SAMPLE not in plan.accuracy.gates:
        return {}
    return {TOKENS_PER_SAMPLE: round(sum(map(len, answers.values())) / len(answers), 1)}


def of_program(log_dir: Path) -> dict[str, float]:
    """``exact_match``, in percent, of the output of MLCommons' scorer in an accuracy log's folder;
    empty before it has run. Raises InputError for another output."""
    path = log_dir / PROGRAM_OUTPUT
    try:
        found = _EXACT_MATCH.findall(path.read_text(errors="replace"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not found:
        raise InputError(
            f"{path}: the scorer printed no 'exact_match'",
            hint="it prints a line 'exact_match': PERCENT; then run python -m sut.score again",
        )
    return {"exact_match": float(found[-1])}


def read_answers(log_dir: Path, num_samples: int) -> dict[int, list[int]]:
    """Output token ids by sample index, of a log with one answer to each of the first
    ``num_samples`` samples. ``log_dir`` may be the file itself.

    Raises InputError for a damaged log, RunError for samples missing or answered twice.
    """
    path = log_dir / logged.FILE_NAME if log_dir.is_dir() else log_dir
    answers: dict[int, list[int]] = {}
    twice = []
    for number, answer in enumerate(logged.read(path), start=1):
        if answer.counted not in (None, len(answer.tokens)):
            raise InputError(
                f"{path}: entry {number} (sample {answer.sample}): token_count is "
                f"{answer.counted} but {len(answer.tokens)} token ids were logged",
                hint="correct how the harness counts tokens",
            )
        if answer.sample in answers:
            twice.append(answer.sample)
        answers.setdefault(answer.sample, list(answer.tokens))
    samples = set(range(num_samples))
    for what, indices in (
        ("not answered", samples - answers.keys()),
        ("answered twice", twice),
        ("not in the data set", answers.keys() - samples),
    ):
        if indices:
            some = ", ".join(map(str, sorted(indices)[:5])) + ", ..." * (len(indices) > 5)
            raise RunError(
                f"{path}: {len(indices)} of {num_samples} samples {what}: {some}",
                code="accuracy_incomplete",
                hint="run the accuracy test again: a part of the answers has no score",
            )
    return answers


def decode(token_ids: Sequence[Sequence[int]], model_path: Path) -> list[str]:
    """The texts, by the tokenizer in ``model_path``, without special tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model_path), local_files_only=True)
    return list(tokenizer.batch_decode([list(ids) for ids in token_ids], skip_special_tokens=True))


def exact_match(
    answers: Mapping[int, Sequence[int]],
    prompts: Sequence[Sequence[int]],
    generation: Generation,
) -> float:
    """The share of answers that echo their prompt, ``token[i] == prompt[i % len(prompt)]``,
    at a length that the generation settings allow, as the replay engine answers.
    """
    matches = sum(
        generation.min_tokens <= len(tokens) <= generation.max_tokens
        and all(token == prompts[index][i % len(prompts[index])] for i, token in enumerate(tokens))
        for index, tokens in answers.items()
    )
    return matches / len(answers)
