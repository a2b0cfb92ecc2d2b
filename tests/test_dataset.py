"""Samples: prompts, the token cache, and every way a data file can be invalid."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from plans import plan_of
from tokenizers import Tokenizer, models, pre_tokenizers

from sut.errors import InputError
from sut.inputs import cache as inputs
from sut.inputs import dataset, model
from sut.plan.benchmark import Dataset, DatasetKind, EngineKind, ReplayAnswers
from sut.plan.plan import Plan
from sut.serving import wire


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "own_cache" not in request.keywords:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    """A model folder with a word-level tokenizer."""
    words = ["?", "Summarize:", "End", *(f"w{i}" for i in range(100))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"bos_token_id": 7}')
    return folder


def cnn_plan(file: Path, **changes: object) -> Plan:
    fields: dict[str, object] = {
        "name": "test",
        "kind": DatasetKind.CNN_EVAL,
        "num_samples": 2,
        "prompt": "Summarize: {input} End",
        "bos": True,
        "path": str(file),
    }
    data = Dataset(**{**fields, **changes})  # type: ignore[arg-type]
    return msgspec.structs.replace(plan_of("replay"), dataset=data)


def write(tmp_path: Path, entries: object) -> Path:
    file = tmp_path / "data.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return file


ARTICLES = [
    {"instruction": "", "input": "w1 w2 w3", "output": "w1"},
    {"instruction": "", "input": "w4", "output": "w5"},
]


def test_a_prompt_is_bos_and_the_filled_template(tmp_path: Path, tokenizer_folder: Path) -> None:
    samples = dataset.load(cnn_plan(write(tmp_path, ARTICLES)), tokenizer_folder)
    assert samples.prompts == [[7, 1, 4, 5, 6, 2], [7, 1, 7, 2]]
    assert samples.references == ["w1", "w5"]


def test_a_replay_engine_can_answer_with_references(tmp_path: Path, tokenizer_folder: Path) -> None:
    echoing = cnn_plan(write(tmp_path, [ARTICLES[0], {**ARTICLES[1], "output": "w5 w6"}]))
    samples = dataset.load(echoing, tokenizer_folder)
    assert dataset.replay_answers(echoing, samples, tokenizer_folder) == []
    replay = msgspec.structs.replace(echoing.engine.replay, answers=ReplayAnswers.REFERENCES)
    engine = msgspec.structs.replace(echoing.engine, replay=replay)
    plan = msgspec.structs.replace(echoing, engine=engine)
    assert dataset.replay_answers(plan, samples, tokenizer_folder) == [[4], [8, 9]]
    (request, _), _ = wire.encode(plan, samples.prompts, None, [[4], [8, 9]]).requests
    assert msgspec.msgpack.decode(request)[3]["extra_args"] == {"answer": [4]}
    short = msgspec.structs.replace(plan.generation, max_tokens=1)
    with pytest.raises(InputError, match=r"1 references \(sample 1 first\) are longer"):
        dataset.replay_answers(
            msgspec.structs.replace(plan, generation=short), samples, tokenizer_folder
        )


def test_encodes_references_once(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = cnn_plan(write(tmp_path, ARTICLES))
    replay = msgspec.structs.replace(plan.engine.replay, answers=ReplayAnswers.REFERENCES)
    engine = msgspec.structs.replace(plan.engine, kind=EngineKind.REPLAY, replay=replay)
    plan = msgspec.structs.replace(plan, engine=engine)
    samples = dataset.load(plan, tokenizer_folder)
    first = dataset.replay_answers(plan, samples, tokenizer_folder)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_Encoder", None)
        assert dataset.replay_answers(plan, samples, tokenizer_folder) == first
    other = msgspec.structs.replace(samples, references=["w1", "w6"], sha256="f" * 64)
    assert dataset.replay_answers(plan, other, tokenizer_folder) == [[4], [9]]


def test_truncates_the_article_of_a_long_prompt(tmp_path: Path, tokenizer_folder: Path) -> None:
    plan = cnn_plan(write(tmp_path, ARTICLES), max_prompt_tokens=5)
    assert dataset.load(plan, tokenizer_folder).prompts == [[7, 1, 4, 5, 2], [7, 1, 7, 2]]


def test_a_second_load_needs_no_tokenizer(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = cnn_plan(write(tmp_path, ARTICLES))
    first = dataset.load(plan, tokenizer_folder)
    monkeypatch.setattr(dataset, "_Encoder", None)
    assert dataset.load(plan, tokenizer_folder) == first


def planted(plan: Plan, folder: Path, entry: dataset._Tokenized) -> dataset.Samples:
    """What a run loads where another program has replaced the cache's entry, with its seal."""
    dataset.load(plan, folder)
    (file,) = (inputs.cache_dir() / "samples").iterdir()
    keys: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "read_entry", lambda _, key, __: keys.append(key))
        dataset.load(plan, folder)
    inputs.write_entry(file, keys[0], entry)
    assert inputs.read_entry(file, keys[0], dataset._Tokenized) == entry
    return dataset.load(plan, folder)


def test_a_planted_entry_of_fewer_samples_is_not_used(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    plan = cnn_plan(write(tmp_path, ARTICLES))
    entry = dataset._Tokenized(prompts=[[1, 2, 3]], references=["w1"])
    found = planted(plan, tokenizer_folder, entry)
    assert found.prompts == [[7, 1, 4, 5, 6, 2], [7, 1, 7, 2]]


def test_planted_tokens_do_not_have_the_datas_digest(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    file = write(tmp_path, ARTICLES)
    plan = cnn_plan(file)
    entry = dataset._Tokenized(prompts=[[1, 2, 3], [4]], references=["w1", "w5"])
    found = planted(plan, tokenizer_folder, entry)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    fresh = dataset.load(plan, tokenizer_folder, use_cache=False)
    assert fresh.prompts == [[7, 1, 4, 5, 6, 2], [7, 1, 7, 2]]
    assert found.tokens_sha256() != fresh.tokens_sha256()


def test_another_version_of_the_tokenizer_misses_the_cache(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = cnn_plan(write(tmp_path, ARTICLES))
    dataset.load(plan, tokenizer_folder)
    package = tmp_path / "packages" / "tokenizers-99.dist-info" / "METADATA"
    package.parent.mkdir(parents=True)
    package.write_text("Metadata-Version: 2.1\nName: tokenizers\nVersion: 99\n")
    monkeypatch.syspath_prepend(package.parent.parent)
    dataset.load(plan, tokenizer_folder)
    assert len(list((inputs.cache_dir() / "samples").iterdir())) == 2


@pytest.mark.parametrize(
    "change", [{"prompt": "{input}"}, {"bos": False}, {"max_prompt_tokens": 5}]
)
def test_other_settings_miss_the_cache(
    tmp_path: Path, tokenizer_folder: Path, change: dict[str, object]
) -> None:
    file = write(tmp_path, ARTICLES)
    first = dataset.load(cnn_plan(file), tokenizer_folder)
    assert dataset.load(cnn_plan(file, **change), tokenizer_folder).prompts != first.prompts


@pytest.mark.parametrize(
    ("entries", "change", "part"),
    [
        ("[{", {}, "invalid or truncated JSON"),
        ("{}", {}, "expected a list"),
        ([1, 2], {}, "item 0: expected an object"),
        ([{"input": "x"}] * 2, {}, "item 0: output is missing"),
        ([{"input": 3, "output": "x"}] * 2, {}, "item 0: input is not a string"),
        (
            [*ARTICLES[:1], {"input": "  ", "output": "x"}],
            {},
            "empty text in 1 sample, the first at index 1",
        ),
        (
            [*ARTICLES[:1], {"input": "x", "output": ""}],
            {},
            "empty reference in 1 sample, the first at index 1",
        ),
        (ARTICLES[:1], {}, "contains 1 sample; data set test has 2"),
        (ARTICLES, {"sha256": "0" * 64}, "its sha256 is"),
        (ARTICLES, {"max_prompt_tokens": 3}, "leaves no room"),
    ],
)
def test_an_invalid_file_is_named_with_the_item(
    tmp_path: Path,
    tokenizer_folder: Path,
    entries: object,
    change: dict[str, object],
    part: str,
) -> None:
    file = write(tmp_path, entries)
    with pytest.raises(InputError) as error:
        dataset.load(cnn_plan(file, **change), tokenizer_folder)
    assert part in str(error.value) and str(file) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        dataset.load(cnn_plan(tmp_path / "missing.json"), tokenizer_folder)


def test_refuses_prompts_longer_than_the_engine_takes(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    # The replay benchmark's engine has room for 1024 - 64 tokens of prompt.
    long = [{"input": " ".join(["w1"] * 1000), "output": "x"}, ARTICLES[1]]
    with pytest.raises(InputError, match=r"engine.max_model_len=1067"):
        dataset.load(cnn_plan(write(tmp_path, long)), tokenizer_folder)


def test_synthetic_prompts_are_seeded_and_bounded() -> None:
    plan = plan_of("replay")
    samples = dataset.load(plan, None)
    assert samples == dataset.load(plan, None)
    lengths = [len(prompt) for prompt in samples.prompts]
    assert len(lengths) == plan.dataset.num_samples
    assert min(lengths) >= 64 and max(lengths) <= 512 and len(set(lengths)) > 100
    assert all(0 <= token < dataset.SYNTHETIC_VOCABULARY for p in samples.prompts for token in p)


@pytest.mark.own_cache
def test_news_prompts_lack_their_first_sentences() -> None:
    plan = plan_of("smollm2-135m-news")
    path = model.locate(plan.model)
    samples = dataset.load(plan, path)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    assert len(samples.prompts) == len(samples.references) == 300
    for prompt, reference in zip(samples.prompts, samples.references, strict=True):
        assert 0 < len(prompt) <= plan.dataset.max_prompt_tokens
        text = tokenizer.decode(prompt)
        assert reference not in text
        assert text.endswith("\n\nSummary:")
