"""Scores equal the reference's, from exactly the answers LoadGen logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from loadgen_logs import make
from records import PLAN
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sut.errors import InputError, RunError
from sut.inputs import wheels
from sut.plan.benchmark import Dataset, DatasetKind, Generation
from sut.results import accuracy, answers


@pytest.fixture(autouse=True)
def punkt() -> None:
    wheels.use_nltk_data()


def write_log(folder: Path, entries: Any) -> Path:
    (folder / answers.FILE_NAME).write_text(json.dumps(entries))
    return folder


def entry(index: int, data: str = "01000000", **more: Any) -> dict[str, Any]:
    return {"seq_id": index, "qsl_idx": index, "data": data, **more}


@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_reads_the_answers_given_to_loadgen(scenario: str, tmp_path: Path) -> None:
    tokens = {str(i): [i, 2**31 - 1, 7 * i, -1][: 2 + i % 3] for i in range(20)}
    log_dir = make(
        tmp_path / "log",
        scenario=scenario,
        mode="AccuracyOnly",
        user_conf={"target_qps": 1000},
        num_samples=20,
        tokens=tokens,
    )
    found = accuracy.read_answers(log_dir, 20)
    assert {str(index): answer for index, answer in found.items()} == tokens


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(0), entry(2)], "1 of 3 samples not answered: 1"),
        ([entry(0), entry(1), entry(2), entry(1)], "1 of 3 samples answered twice: 1"),
        ([entry(0), entry(1), entry(2), entry(9)], "1 of 3 samples not in the data set: 9"),
    ],
)
def test_refuses_to_score_incomplete_answers(
    entries: list[dict[str, Any]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=words) as caught:
        accuracy.read_answers(write_log(tmp_path, entries), 3)
    assert caught.value.code == "accuracy_incomplete"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "contains no answers"),
        ({"qsl_idx": 0}, "contains no answers"),
        ([entry(0), {"qsl_idx": 1}], "entry 2"),
        ([entry(0), "text"], "entry 2"),
        ([entry(0, data="010000")], "entry 1"),
        ([entry(0, data="0100000g")], "entry 1"),
        ([entry(0, token_count=129)], "token_count is 129 but 1"),
    ],
)
def test_names_a_damaged_log(entries: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{answers.FILE_NAME}.*{words}"):
        accuracy.read_answers(write_log(tmp_path, entries), 1)


def test_names_a_truncated_or_missing_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        accuracy.read_answers(tmp_path, 1)
    path = write_log(tmp_path, [entry(0)]) / answers.FILE_NAME
    path.write_text(path.read_text()[:-1])
    with pytest.raises(InputError, match="damaged or truncated"):
        accuracy.read_answers(tmp_path, 1)


@pytest.mark.parametrize(
    ("tokens", "matches"),
    [
        ([1, 2, 3, 1, 2], True),
        ([1, 2], True),
        ([1, 2, 3, 1, 2, 3], False),  # over max_tokens
        ([1], False),  # under min_tokens
        ([], False),
        ([1, 2, 4], False),
        ([1, 2, 3, 2], False),
    ],
)
def test_an_echo_matches_at_any_allowed_length(tokens: list[int], matches: bool) -> None:
    generation = Generation(min_tokens=2, max_tokens=5)
    echoes = {0: [7, 7], 1: tokens}
    score = accuracy.exact_match(echoes, [[7], [1, 2, 3]], generation)
    assert score == (1.0 if matches else 0.5)


def test_scores_synthetic_data_without_a_tokenizer(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(
        PLAN,
        dataset=Dataset(name="synthetic", kind=DatasetKind.SYNTHETIC, num_samples=2),
        generation=Generation(max_tokens=2),
    )
    log_dir = write_log(tmp_path, [entry(1, "0500000005000000"), entry(0, "04000000")])
    scores = accuracy.score_phase(
        log_dir, plan, num_samples=2, prompts=[[4], [5]], references=[], model_path=None
    )
    assert scores == {"exact_match": 1.0}


def test_compares_decoded_answers_with_their_references(
    tmp_path: Path,
) -> None:
    words = {"<eos>": 0, "rain": 1, "stops": 2, "play": 3, "sun": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(model)
    log = [entry(1, "0400000000000000"), entry(0, "01000000020000000300000000000000")]
    scores = accuracy.score_phase(
        write_log(tmp_path, log),
        PLAN,
        num_samples=2,
        prompts=[[1], [1], [1]],
        references=["rain stops play", "sun", "not answered"],
        model_path=model,
    )
    assert scores["rouge1"] == 100.0
    assert scores["gen_len"] == len("rain stops play") + len("sun")
