"""TEST06, MLPerf's compliance test of language models: the answers are what was reported of them.

A short performance test that logs the answers of its 100 queries. For each answer it checks that
its first token is the one reported as first, that it ends in at most one end-of-sequence token,
and that it has as many tokens as were counted. MLCommons' own script checks a single
end-of-sequence id, and none if the id is passed on its command line: it compares numbers with text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sut.results import rules
from sut.results.answers import Answer
from sut.results.judge import Verdict, verdict_of
from sut.results.mllog import DetailLog
from sut.results.rules import Check
from sut.units import number, quantity
from sut.values import Struct

NUM_QUERIES = 100
VERIFY_ACCURACY = "verify_accuracy.txt"


class Verification(Struct, frozen=True, kw_only=True):
    """The number of answers checked and the samples that failed each check. ``first_token`` is
    None where LoadGen logs no first tokens (Offline)."""

    num_answers: int
    first_token: tuple[int, ...] | None
    eos: tuple[int, ...]
    length: tuple[int, ...]


def verify(
    answers: Sequence[Answer], scenario: str, eos_token_ids: Collection[int]
) -> Verification:
    """Check the answers as TEST06 does. ``scenario`` is LoadGen's name."""

    def failing(fails: Callable[[Answer], bool]) -> tuple[int, ...]:
        return tuple(answer.sample for answer in answers if fails(answer))

    return Verification(
        num_answers=len(answers),
        first_token=None if scenario == "Offline" else failing(_other_first_token),
        eos=failing(lambda answer: _num_eos_at_end(answer.tokens, eos_token_ids) > 1),
        length=failing(lambda answer: len(answer.tokens) != answer.counted),
    )


def verify_accuracy_text(test: Verification) -> str:
    """``verify_accuracy.txt``, as MLCommons' script writes it."""
    first_token = "Skipped" if test.first_token is None else str(not test.first_token)
    passed = not (test.first_token or test.eos or test.length)
    return (
        f"First token check pass: {first_token}\n"
        f"EOS check pass: {not test.eos}\n"
        f"Sample length check pass: {not test.length}\n"
        f"TEST06 verification {'complete' if passed else 'failed'}\n"
    )


def judge(
    test: Verification,
    log: DetailLog,
    *,
    num_failed: int | None = None,
    official: bool | None = None,
) -> Verdict:
    """The verdict on a compliance test. Its speed is not judged, so LoadGen's own verdict, on a run
    shorter than any VALID one, is ignored."""
    checks = [
        _num_answers(test.num_answers),
        _first_token(test.first_token),
        _check(
            "test06_eos",
            test.eos,
            "ends in more than one end-of-sequence token",
            "End an answer at its first end-of-sequence token.",
        ),
        _check(
            "test06_length",
            test.length,
            "has a different number of tokens than reported",
            "Report to LoadGen the number of token ids of the answer.",
        ),
        *rules.beyond_loadgen(log, num_failed, ()),
    ]
    return verdict_of(checks, official=official, metrics={})


def _num_answers(num: int) -> Check:
    text = f"{quantity(num, 'answers')} logged; at least {NUM_QUERIES} needed."
    met = num >= NUM_QUERIES
    remedy = None if met else "Use MLCommons' audit.config of TEST06."
    return Check("test06_answers", met, text, num, NUM_QUERIES, "answers", remedy)


def _first_token(samples: tuple[int, ...] | None) -> Check:
    if samples is None:
        text = "Offline has no first tokens, so TEST06 does not check them."
        return Check("test06_first_token", True, text)
    return _check(
        "test06_first_token",
        samples,
        "begins with a different token than reported",
        "Report the answer's own first token id, as soon as it exists.",
    )


def _check(code: str, samples: tuple[int, ...], what: str, remedy: str) -> Check:
    num = len(samples)
    if not num:
        return Check(code, True, f"No answer {what}.", 0, 0, "answers")
    which = "sample" if num == 1 else f"{number(num)} samples:"
    some = ", ".join(map(str, samples[:5])) + ", ..." * (num > 5)
    return Check(code, False, f"An answer {what}: {which} {some}.", num, 0, "answers", remedy)


def _other_first_token(answer: Answer) -> bool:
    first = answer.first_tokens
    return not first or answer.tokens[: len(first)] != first


def _num_eos_at_end(tokens: Sequence[int], eos_token_ids: Collection[int]) -> int:
    num = 0
    while num < len(tokens) and tokens[-1 - num] in eos_token_ids:
        num += 1
    return num
