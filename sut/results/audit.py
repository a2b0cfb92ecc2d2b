"""The audit of what LoadGen was told: how many tokens an answer had, and when its first one came.

LoadGen believes both. A harness that counts the prompt's last token, or encodes the answer's text
anew, tells 129 tokens for an answer of 128; one that reports first token and completion together
tells a time per output token of nothing, and LoadGen calls that VALID.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from sut.errors import InputError
from sut.results.accuracy import FILE_NAME, is_tokens
from sut.results.measures import TPOT_KEY, Measures, measure, percentile_key
from sut.results.mllog import DetailLog
from sut.results.rules import Check, check
from sut.results.sample_log import SampleLog
from sut.units import number, quantity
from sut.values import Struct

# No model decodes a token in less; what is told in one call comes to nanoseconds, through Python
# to microseconds. The minimum is no sign: two tokens may come from an engine at once.
MIN_TPOT_MS = 0.1
LOADGEN_DIGITS = 1e-4  # LoadGen logs its rates with six digits
COMMON = 0.05  # the share of answers from which a length is no accident
_CUT = b"\n...\n"  # where MLCommons' tool cuts a log for a submission


class Answers(Struct, frozen=True, kw_only=True):
    """What ``mlperf_log_accuracy.json`` tells of answers' lengths. ``differing`` answers have
    another number of tokens than was told."""

    num: int
    longest: int
    num_longest: int
    differing: int


def read(log_dir: Path) -> tuple[Answers | None, str | None]:
    """The answers LoadGen logged in ``log_dir``; None where it logged none, with what is to be
    said of that. Raises InputError for a damaged file."""
    path = (log_dir if log_dir.is_dir() else log_dir.parent) / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from None
    if _CUT in content:
        return None, f"{FILE_NAME} was cut for a submission, so its token counts were not audited."
    if not content.strip(b"[] \r\n\t"):
        return None, None
    try:
        lengths = [_lengths(entry) for entry in json.loads(content)]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged or cut: {error}. Use the file as LoadGen wrote it, or run the test "
            "again."
        ) from None
    told = Counter(told for _, told in lengths)
    longest = max(told)
    return Answers(
        num=len(lengths),
        longest=longest,
        num_longest=told[longest],
        differing=sum(logged != told for logged, told in lengths),
    ), None


def of_token_counts(
    log: DetailLog,
    *,
    answers: Answers | None = None,
    samples: SampleLog | None = None,
    max_tokens: int | None = None,
) -> Check | None:
    """Whether the token counts told can be true; None where nothing tells them.

    ``max_tokens`` is the most an answer may have. Where it is not known, one more than a power of
    two in every answer, or as the length that many are cut at, is taken for a miscount.
    """
    mean = _mean_tokens(log)
    longest: list[float] = [] if answers is None else [answers.longest]
    longest += [] if samples is None else [max(samples.output_tokens)]
    if mean is not None:
        longest.append(mean)
    if not longest:
        return None
    problems = [
        *_of_answers(answers, max_tokens),
        *_of_mean(mean, max_tokens),
        *_of_samples(samples, mean, max_tokens),
    ]
    return _token_count(problems, max(longest), max_tokens)


def of_answers(answers: Answers | None, max_tokens: int | None) -> Check | None:
    """The same of a test that LoadGen takes no times of: of the answers it logged alone."""
    if answers is None:
        return None
    return _token_count(_of_answers(answers, max_tokens), answers.longest, max_tokens)


def _token_count(problems: list[str], most: float, max_tokens: int | None) -> Check:
    remedy = None
    text = "The token counts told to LoadGen can be true."
    if problems:
        text = f"{'; '.join(problems)}."
        remedy = (
            "Tell LoadGen the number of token ids the engine gave: no token of the prompt, no text "
            "encoded anew."
        )
    return check("token_count", not problems, text, most, max_tokens, "tokens", remedy=remedy)


def of_tpot(log: DetailLog) -> Check | None:
    """Whether the time per output token can be true; None where the log has none."""
    key = percentile_key(TPOT_KEY, 0.5)
    if key not in log.values:
        return None
    tpot_ns = log.number(key)
    if tpot_ns is None:
        return None
    tpot_ms = tpot_ns / 1e6
    met = tpot_ms >= MIN_TPOT_MS
    text = f"TPOT p50 was {quantity(tpot_ms, 'ms')}, as an engine's can be."
    remedy = None
    if not met:
        text = (
            f"TPOT p50 was {quantity(tpot_ms, 'ms')}; no engine decodes a token in less than "
            f"{quantity(MIN_TPOT_MS, 'ms')}: first token and completion were reported together."
        )
        remedy = "Call FirstTokenComplete when the first token is there, not with the last."
    return check("tpot_plausible", met, text, tpot_ms, MIN_TPOT_MS, "ms", remedy=remedy)


def _lengths(entry: object) -> tuple[int, int]:
    """An answer's number of token ids, and the number told. Raises ValueError."""
    match entry:
        case {"data": str(data), **rest} if is_tokens(data):
            logged = len(data) // 8
            told = rest.get("token_count", logged)
            if isinstance(told, int) and not isinstance(told, bool):
                return logged, told
    raise ValueError("an entry is not one of LoadGen's answers of token ids")


def _mean_tokens(log: DetailLog) -> float | None:
    """Tokens an answer, from LoadGen's rates."""
    seen: Measures = measure(log.values)
    tokens_per_s, rate, num = seen.tokens_per_s, seen.samples_per_s, seen.num_samples
    mean = None
    match log.scenario:
        case "Offline" if tokens_per_s and rate:
            mean = tokens_per_s / rate
        case "Server" if tokens_per_s and rate and num and num > 1:
            mean = tokens_per_s * (num - 1) / rate / num  # LoadGen's rate leaves one query out
        case "SingleStream" if rate and num and num > 1:
            by_issue = log.values.get("result_token_throughput_with_loadgen_overhead")
            if isinstance(by_issue, int | float):
                mean = by_issue * (num - 1) / rate / num
    return mean if mean is not None and math.isfinite(mean) else None


def _of_answers(answers: Answers | None, max_tokens: int | None) -> list[str]:
    if answers is None:
        return []
    problems = []
    if answers.differing:
        problems.append(
            f"Of {quantity(answers.num, 'answers')} logged, {number(answers.differing)} have "
            "another number of token ids than LoadGen was told"
        )
    share = answers.num_longest / answers.num
    over = max_tokens is not None and answers.longest > max_tokens
    if over or (max_tokens is None and share >= COMMON and _one_too_many(answers.longest)):
        limit = answers.longest - 1 if max_tokens is None else max_tokens
        problems.append(
            f"{number(answers.num_longest)} of {quantity(answers.num, 'answers')} have "
            f"{quantity(answers.longest, 'tokens')}, more than the {number(limit)} asked for"
        )
    return problems


def _of_mean(mean: float | None, max_tokens: int | None) -> list[str]:
    if mean is None:
        return []
    whole = round(mean)
    all_alike = abs(mean - whole) <= LOADGEN_DIGITS * mean
    over = max_tokens is not None and mean > max_tokens * (1 + LOADGEN_DIGITS)
    if over or (max_tokens is None and all_alike and _one_too_many(whole)):
        limit = whole - 1 if max_tokens is None else max_tokens
        told = f"LoadGen was told {number(mean)} tokens an answer in the mean"
        return [f"{told}, more than the {number(limit)} asked for"]
    return []


def _of_samples(samples: SampleLog | None, mean: float | None, max_tokens: int | None) -> list[str]:
    if samples is None:
        return []
    problems = []
    longest = max(samples.output_tokens)
    if max_tokens is not None and longest > max_tokens:
        problems.append(
            f"A sample has {quantity(longest, 'tokens')}, more than the {number(max_tokens)} "
            "asked for"
        )
    given = sum(samples.output_tokens) / len(samples)
    if mean is not None and abs(mean - given) > LOADGEN_DIGITS * given:
        problems.append(
            f"LoadGen was told {mean:.6g} tokens an answer in the mean, and the engines gave "
            f"{given:.6g}"
        )
    return problems


def _one_too_many(tokens: int) -> bool:
    """Whether it is one more than a power of two that limits are set to."""
    limit = tokens - 1
    return limit >= 32 and limit & (limit - 1) == 0
