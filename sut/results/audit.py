"""The audit of what a harness reports to LoadGen: token counts, and when the first token came.

LoadGen checks neither. A harness that counts the prompt's last token, or encodes the answer's text
again, reports 129 tokens for an answer of 128. One that reports first token and completion
together gets a time per output token near zero, and LoadGen calls that VALID.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from sut.errors import InputError
from sut.results import answers as logged
from sut.results import mllog
from sut.results.measures import TPOT_KEY, measure, percentile_key
from sut.results.mllog import DetailLog
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.units import number, quantity
from sut.values import Struct

# No model decodes a token in less. Reported in one call, TPOT is nanoseconds, or microseconds in
# Python. A tiny minimum proves nothing: an engine may return two tokens at once.
MIN_TPOT_MS = 0.1
LOADGEN_DIGITS = 1e-4  # LoadGen logs its rates with six digits
COMMON = 0.05  # share of answers above which a length is not a coincidence
_CUT = b"\n...\n"  # where MLCommons' tool truncates a log for a submission


class AnswerLengths(Struct, frozen=True, kw_only=True):
    """The lengths of the answers in ``mlperf_log_accuracy.json``. The number of tokens of
    ``differing`` answers is not the reported one."""

    num: int
    longest: int
    num_longest: int
    differing: int


def read(logs: Path) -> tuple[AnswerLengths | None, str | None]:
    """The answers LoadGen logged in the folder ``logs``, or beside the detail log ``logs``; None
    where it logged none, with a note if they could not be read. Raises InputError for a damaged
    file."""
    path = logs / logged.FILE_NAME if logs.is_dir() else mllog.companion(logs, "accuracy.json")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if _CUT in content:
        note = f"{path.name} was truncated for a submission, so its token counts were not audited."
        return None, note
    if not content.strip(b"[] \r\n\t"):
        return None, None
    found = logged.parse(path, content)
    counts = Counter(answer.num_reported for answer in found)
    longest = max(counts)
    return AnswerLengths(
        num=len(found),
        longest=longest,
        num_longest=counts[longest],
        differing=sum(len(answer.tokens) != answer.num_reported for answer in found),
    ), None


def of_log(
    log: DetailLog,
    *,
    answers: AnswerLengths | None,
    samples: SampleLog | None,
    max_tokens: int | None,
) -> list[Check]:
    """The audit of a test that counts tokens.

    ``max_tokens`` is the limit of an answer. Where it is unknown, powers of two are usual limits,
    and a token more counts as a miscount: for the longest answers if they are common, for the mean
    if it is above the power of two.
    """
    if not log.token_latencies:
        return []
    found = _of_token_counts(log, answers, samples, max_tokens), _of_tpot(log)
    return [check for check in found if check is not None]


def of_answers(answers: AnswerLengths | None, max_tokens: int | None) -> Check | None:
    """Whether the token counts of a test without times, known from its answers, are plausible."""
    if answers is None:
        return None
    return _token_count(_of_answers(answers, max_tokens), answers.longest, max_tokens)


def _of_token_counts(
    log: DetailLog, answers: AnswerLengths | None, samples: SampleLog | None, max_tokens: int | None
) -> Check | None:
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


def _token_count(problems: list[str], most: float, max_tokens: int | None) -> Check:
    remedy = None
    text = "Token counts reported to LoadGen are plausible."
    if problems:
        text = f"Token counts are not plausible: {'; '.join(problems)}."
        remedy = (
            "Report the number of token ids the engine returned: without tokens of the prompt, and "
            "without encoding the text again."
        )
    return Check("token_count", not problems, text, most, max_tokens, "tokens", remedy)


def _of_tpot(log: DetailLog) -> Check | None:
    key = percentile_key(TPOT_KEY, 0.5)
    tpot_ns = log.number(key) if key in log.values else None
    if tpot_ns is None:
        return None
    tpot_ms = tpot_ns / 1e6
    met = tpot_ms >= MIN_TPOT_MS
    text = f"TPOT p50 was {quantity(tpot_ms, 'ms')}, plausible for a real engine."
    remedy = None
    if not met:
        text = (
            f"TPOT p50 was {quantity(tpot_ms, 'ms')}; no engine decodes a token in less than "
            f"{quantity(MIN_TPOT_MS, 'ms')}: first token and completion were reported together."
        )
        remedy = "Call FirstTokenComplete when the first token exists, not with the last."
    return Check("tpot_plausible", met, text, tpot_ms, MIN_TPOT_MS, "ms", remedy)


def _mean_tokens(log: DetailLog) -> float | None:
    """Tokens an answer, from LoadGen's rates."""
    seen = measure(log.values)
    tokens_per_s, rate, num = seen.tokens_per_s, seen.samples_per_s, seen.num_samples
    mean = None
    match log.scenario:
        case "Offline" if tokens_per_s and rate:
            mean = tokens_per_s / rate
        case "Server" if tokens_per_s and rate and num and num > 1:
            mean = tokens_per_s * (num - 1) / rate / num  # LoadGen's rate omits one query
        case "SingleStream" if rate and num and num > 1:
            by_issue = log.values.get("result_token_throughput_with_loadgen_overhead")
            if isinstance(by_issue, int | float):
                mean = by_issue * (num - 1) / rate / num
    return mean if mean is not None and math.isfinite(mean) else None


def _of_answers(answers: AnswerLengths | None, max_tokens: int | None) -> list[str]:
    if answers is None:
        return []
    problems = []
    if answers.differing:
        problems.append(
            f"the number of token ids differs from the reported one in "
            f"{number(answers.differing)} of {quantity(answers.num, 'answers')}"
        )
    share = answers.num_longest / answers.num
    limit = max_tokens
    if limit is None and share >= COMMON:
        limit = _usual_limit(answers.longest)
    if limit is not None and answers.longest > limit:
        problems.append(
            f"{number(answers.num_longest)} of {quantity(answers.num, 'answers')} have "
            f"{quantity(answers.longest, 'tokens')}, more than {_limit(limit, max_tokens)}"
        )
    return problems


def _of_mean(mean: float | None, max_tokens: int | None) -> list[str]:
    if mean is None:
        return []
    limit = max_tokens
    if limit is None:
        limit = _usual_limit(math.ceil(mean * (1 - LOADGEN_DIGITS)))
    if limit is None or mean <= limit * (1 + LOADGEN_DIGITS):
        return []
    reported = f"the mean reported to LoadGen is {mean:.6g} tokens an answer"
    return [f"{reported}, more than {_limit(limit, max_tokens)}"]


def _limit(limit: int, known: int | None) -> str:
    return f"the limit of {number(limit)}" if known is not None else f"{limit}, a usual limit"


def _of_samples(samples: SampleLog | None, mean: float | None, max_tokens: int | None) -> list[str]:
    if samples is None:
        return []
    problems = []
    longest = max(samples.output_tokens)
    if max_tokens is not None and longest > max_tokens:
        problems.append(
            f"a sample has {quantity(longest, 'tokens')}, more than the limit of "
            f"{number(max_tokens)}"
        )
    given = sum(samples.output_tokens) / len(samples)
    if mean is not None and abs(mean - given) > LOADGEN_DIGITS * given:
        problems.append(
            f"the mean reported to LoadGen is {mean:.6g} tokens an answer, but the engines "
            f"returned {given:.6g}"
        )
    return problems


def _usual_limit(tokens: int) -> int | None:
    """The limit that an answer of ``tokens`` exceeds by one, if that is a power of two."""
    limit = tokens - 1
    return limit if limit >= 32 and limit & (limit - 1) == 0 else None
