"""ROUGE: scores that can be counted by hand, and the processes that compute them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sut.inputs import wheels
from sut.machine import processes
from sut.results import rouge

PAIRS = [
    ("the cats sat down", "the cat lay down"),
    ("Dogs bark. Cats sleep.", "Cats sleep. Dogs bark."),
    ("", "a b"),
    ("  One.  Two. \n", "One."),
    ("h\u00e9\u00e9 \ud800", "x"),
]


@pytest.fixture(autouse=True)
def punkt() -> None:
    wheels.use_nltk_data()


def test_the_same_text_scores_100() -> None:
    text = "The mayor opened the bridge on Monday. Dr. Smith was there."
    assert rouge.score([text], [text]) == {
        "rouge1": 100.0,
        "rouge2": 100.0,
        "rougeL": 100.0,
        "rougeLsum": 100.0,
        "gen_len": float(len(text)),
    }


def test_scores_match_a_count_by_hand() -> None:
    # 3 of 4 words shared (cats and cat are one stem): F = 2*3/(4+4); 1 of 3 pairs.
    # The other prediction shares nothing.
    scores = rouge.score(["the cats sat down", "x"], ["the cat lay down", "y"])
    assert scores["rouge1"] == 37.5
    assert scores["rouge2"] == 16.6667
    assert scores["rougeL"] == 37.5


def test_rougelsum_compares_sentence_by_sentence() -> None:
    # In the wrong order, as one text, the longest common run is one sentence of two.
    scores = rouge.score(["Dogs bark. Cats sleep."], ["Cats sleep. Dogs bark."])
    assert scores["rougeL"] == 50.0
    assert scores["rougeLsum"] == 100.0


def test_gen_len_counts_characters_after_the_split() -> None:
    scores = rouge.score(["  One.  Two. \n", "héé"], ["One.", "x"])
    assert scores["gen_len"] == len("One.\nTwo.") + len("héé")


def test_scores_are_plain_floats() -> None:
    scores = rouge.score(["a b"], ["a c"])
    assert {type(value) for value in scores.values()} == {float}
    assert "np." not in str(scores)


def test_an_empty_answer_scores_zero() -> None:
    assert rouge.score([""], ["a b"]) == dict.fromkeys([*rouge.NAMES, "gen_len"], 0.0)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_processes_score_as_one_does(num: int) -> None:
    assert rouge.in_processes(PAIRS, num) == rouge.one_by_one(PAIRS)


def test_many_texts_are_scored_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, references = zip(*PAIRS, strict=True)
    alone, asked = rouge.score(predictions, references), []

    def in_processes(pairs: list[tuple[str, str]], num: int) -> rouge.Scored:
        asked.append(num)
        return rouge.one_by_one(pairs)

    monkeypatch.setattr(rouge, "in_processes", in_processes)
    monkeypatch.setattr(rouge, "SHARE", 1)
    monkeypatch.setattr(rouge, "MOST", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert rouge.score(predictions, references) == alone
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2))
    rouge.score(predictions, references)
    assert asked == [3, 2]


@pytest.mark.parametrize("program", ["/bin/false", "/none"])
def test_scores_the_share_of_a_process_that_fails(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    assert rouge.in_processes(PAIRS, 2) == rouge.one_by_one(PAIRS)


def test_processes_end_with_a_killed_parent() -> None:
    text = " ".join(f"word{i % 97}" for i in range(300))
    script = (
        "from sut.results import rouge\n"
        f"rouge.in_processes([({text!r}, {text!r})] * 5000, 2)  # minutes\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        while worker(parent.pid) is None:
            assert parent.poll() is None
            time.sleep(0.1)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while worker(parent.pid) is not None:
        time.sleep(0.1)


def worker(parent: int) -> int | None:
    return processes.running(rouge.__name__, str(parent))
