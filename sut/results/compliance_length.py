"""TEST09, MLPerf's compliance test of the answers' length: truncated answers would be faster.

A performance test that issues every sample once and logs every answer. The mean number of tokens of
an answer must be within bounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sut.plan.benchmark import Gate
from sut.results import rules
from sut.results.answers import Answer
from sut.results.judge import Verdict, verdict_of
from sut.results.mllog import DetailLog
from sut.results.rules import Check
from sut.units import number, quantity
from sut.values import Struct

VERIFY_OUTPUT_LEN = "verify_output_len.txt"
_LINE = "=" * 80


class OutputLengths(Struct, frozen=True, kw_only=True):
    """The lengths of the logged answers, in tokens. ``num_samples`` are different samples."""

    num_answers: int
    num_samples: int
    mean: float
    shortest: int
    longest: int
    deviation: float  # of the population
    counted_otherwise: int  # answers with another number of tokens than was reported


def measure(answers: Sequence[Answer]) -> OutputLengths:
    """``answers`` must not be empty."""
    lengths = [len(answer.tokens) for answer in answers]
    return OutputLengths(
        num_answers=len(answers),
        num_samples=len({answer.sample for answer in answers}),
        mean=statistics.fmean(lengths),
        shortest=min(lengths),
        longest=max(lengths),
        deviation=statistics.pstdev(lengths),
        counted_otherwise=sum(len(each.tokens) != each.num_reported for each in answers),
    )


def verify_output_len_text(found: OutputLengths, bounds: Gate) -> str:
    """``verify_output_len.txt``, as MLCommons' script writes it."""
    above, below = _within(found, bounds)
    return (
        f"{_LINE}\nTEST09: Verify Output Token Length in Performance Mode\n{_LINE}\n\n"
        f"Output Token Length Statistics\n{'-' * 40}\n"
        f"Total samples: {found.num_answers}\n"
        f"Mean output tokens: {found.mean:.2f}\n"
        f"Min output tokens: {found.shortest}\n"
        f"Max output tokens: {found.longest}\n"
        f"Std deviation: {found.deviation:.2f}\n"
        f"\n{_LINE}\nVerification Results\n{_LINE}\n"
        f"Mean output tokens: {found.mean:.2f}\n"
        f"Min threshold: {float(bounds.low)}\n"
        f"Max threshold: {bounds.high}\n"
        f"Min check pass: {above}\n"
        f"Max check pass: {below}\n"
        f"\n{'TEST PASS' if above and below else 'TEST FAIL'}\n"
    )


def judge(
    found: OutputLengths,
    bounds: Gate,
    num_samples: int,
    log: DetailLog,
    *,
    num_failed: int | None = None,
    official: bool | None = None,
) -> Verdict:
    """The verdict on a TEST09 over a data set of ``num_samples``. Its speed is not judged."""
    checks = [
        _mean(found, bounds),
        _every_sample(found, num_samples),
        _counts(found.counted_otherwise),
        *rules.beyond_loadgen(log, num_failed, ()),
    ]
    return verdict_of(checks, official=official, metrics={"mean_output_tokens": found.mean})


def _within(found: OutputLengths, bounds: Gate) -> tuple[bool, bool]:
    return found.mean >= bounds.low, bounds.high is None or found.mean <= bounds.high


def _mean(found: OutputLengths, bounds: Gate) -> Check:
    above, below = _within(found, bounds)
    limits = f"at least {number(bounds.low)}"
    limits += "" if bounds.high is None else f" and at most {number(bounds.high)}"
    text = f"The mean answer has {number(found.mean)} tokens; {limits} needed."
    remedy = None
    if not above:
        remedy = "Use the benchmark's generation settings and model: answers end too early."
    elif not below:
        remedy = "Use the benchmark's generation settings and model: answers end too late."
    limit = bounds.low if not above or bounds.high is None else bounds.high
    return Check("test09_output_tokens", above and below, text, found.mean, limit, "tokens", remedy)


def _every_sample(found: OutputLengths, num_samples: int) -> Check:
    """Each once: a sample that is logged twice changes the mean."""
    met = found.num_answers == found.num_samples == num_samples
    text = (
        f"{quantity(found.num_answers, 'answers')} to {number(found.num_samples)} different "
        f"samples logged; one to each of {number(num_samples)} needed."
    )
    remedy = None if met else "Use MLCommons' audit.config of TEST09, and run it again."
    return Check("test09_answers", met, text, found.num_answers, num_samples, "answers", remedy)


def _counts(num: int) -> Check:
    met = num == 0
    text = "Every answer has as many tokens as reported."
    if not met:
        text = f"{quantity(num, 'answers')} with another number of tokens than reported."
    remedy = None if met else "Report to LoadGen the number of token ids of the answer."
    return Check("test09_length", met, text, num, 0, "answers", remedy)
