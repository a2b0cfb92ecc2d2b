"""TEST06, MLPerf's compliance test of language models: the answers hold what was reported of them.

A performance test, a short one, that logs the answers of its 100 queries. Checked of each: its
first token is the one reported as first; it ends in one end-of-sequence token at most; it has as
many tokens as were counted. MLCommons' own script looks at one end-of-sequence id only, and given
one on its command line at none: it compares numbers with a text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from sut.errors import InputError
from sut.results import accuracy, rules
from sut.results.judge import Verdict
from sut.results.mllog import DetailLog
from sut.results.rules import Check
from sut.units import number, quantity
from sut.values import Struct

# As MLCommons' audit.config of TEST06 has it.
AUDIT_CONFIG = """\
*.*.mode = 2
*.*.accuracy_log_rng_seed = 720381539243781796
*.*.accuracy_log_sampling_target = 100
*.*.min_query_count = 100
*.*.min_duration = 0
*.*.sample_concatenate_permutation = 0
"""
NUM_QUERIES = 100
VERIFY_ACCURACY = "verify_accuracy.txt"


class Answer(Struct, frozen=True, kw_only=True):
    """One logged answer. ``first_tokens`` is what was reported at its first token; ``counted`` is
    the number of tokens LoadGen was told."""

    sample: int
    tokens: tuple[int, ...]
    first_tokens: tuple[int, ...]
    counted: int


class Verification(Struct, frozen=True, kw_only=True):
    """How many answers were looked at and which samples failed which check. ``first_token`` is
    None where LoadGen logs no first tokens (Offline)."""

    num_answers: int
    first_token: tuple[int, ...] | None
    eos: tuple[int, ...]
    length: tuple[int, ...]


def read(log_dir: Path) -> list[Answer]:
    """The answers LoadGen logged. Raises InputError for a log that is missing or damaged."""
    path = log_dir / accuracy.FILE_NAME
    entries = accuracy.entries(path)
    return [_answer(path, place, entry) for place, entry in enumerate(entries, start=1)]


def verify(
    answers: Sequence[Answer], scenario: str, eos_token_ids: Collection[int]
) -> Verification:
    """Hold the answers to TEST06. ``scenario`` is LoadGen's name."""

    def failing(fails: Callable[[Answer], bool]) -> tuple[int, ...]:
        return tuple(answer.sample for answer in answers if fails(answer))

    return Verification(
        num_answers=len(answers),
        first_token=None if scenario == "Offline" else failing(_other_first_token),
        eos=failing(lambda answer: _num_eos_at_end(answer.tokens, eos_token_ids) > 1),
        length=failing(lambda answer: len(answer.tokens) != answer.counted),
    )


def verify_accuracy_text(test: Verification) -> str:
    """``verify_accuracy.txt`` as MLCommons' script writes it."""
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
    """The verdict on a compliance test. Its speed is not judged, so LoadGen's word on the run,
    which is shorter than any that is VALID, says nothing."""
    checks = [_num_answers(test), *_test06(test), *rules.of_ours(log, num_failed, ())]
    reasons = tuple(check for check in checks if not check.met)
    return Verdict(
        verdict="INVALID" if reasons else "VALID",
        loadgen_validity=None,
        official=official,
        reasons=reasons,
        checks=tuple(checks),
        metrics={},
    )


def _num_answers(test: Verification) -> Check:
    num = test.num_answers
    text = f"{quantity(num, 'answers')} logged; at least {NUM_QUERIES} needed."
    met = num >= NUM_QUERIES
    remedy = None if met else "Give LoadGen TEST06's audit.config, as MLCommons has it."
    return rules.check("test06_answers", met, text, num, NUM_QUERIES, "answers", remedy=remedy)


def _test06(test: Verification) -> list[Check]:
    skipped = "Offline has no first tokens, so TEST06 does not check them."
    first_token = (
        rules.check("test06_first_token", True, skipped)
        if test.first_token is None
        else _check("first_token", test.first_token, "begins with another token than reported")
    )
    return [
        first_token,
        _check("eos", test.eos, "ends in more than one end-of-sequence token"),
        _check("length", test.length, "has another number of tokens than was counted"),
    ]


_REMEDIES = {
    "first_token": "Report the answer's own first token id, when it is there.",
    "eos": "End an answer at its first end-of-sequence token.",
    "length": "Tell LoadGen the number of token ids it is given.",
}


def _check(name: str, samples: tuple[int, ...], what: str) -> Check:
    text = f"No answer {what}."
    if samples:
        some = ", ".join(map(str, samples[:5])) + ", ..." * (len(samples) > 5)
        which = "sample" if len(samples) == 1 else f"{number(len(samples))} samples:"
        text = f"An answer {what}: {which} {some}."
    remedy = _REMEDIES[name] if samples else None
    return rules.check(
        f"test06_{name}", not samples, text, len(samples), 0, "answers", remedy=remedy
    )


def _other_first_token(answer: Answer) -> bool:
    first = answer.first_tokens
    return not first or answer.tokens[: len(first)] != first


def _num_eos_at_end(tokens: Sequence[int], eos_token_ids: Collection[int]) -> int:
    num = 0
    while num < len(tokens) and tokens[-1 - num] in eos_token_ids:
        num += 1
    return num


def _answer(path: Path, place: int, entry: object) -> Answer:
    match entry:
        case {
            "qsl_idx": int(sample),
            "data": str(data),
            "token_count": int(counted),
            **rest,
        } if all(map(accuracy.is_tokens, (data, first := str(rest.get("token_data", ""))))):
            return Answer(
                sample=sample,
                tokens=accuracy.tokens_of(data),
                first_tokens=accuracy.tokens_of(first),
                counted=counted,
            )
        case _:
            raise InputError(
                f"{path}: damaged: entry {place} is not one of LoadGen's: qsl_idx, token_count, "
                "data and token_data (int32 token ids in hex). Run the compliance test again."
            )
