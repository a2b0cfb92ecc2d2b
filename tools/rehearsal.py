"""Rehearse a submission without the model and without MLCommons' data.

Usage: python tools/rehearsal.py FOLDER [BENCHMARK]  (next steps: docs/submission.md)

Writes into FOLDER as many generated samples as each data set of BENCHMARK has (default:
llama3.1-8b), a benchmark with its settings whose replay engine answers with the references, and a
site. The references have the length that MLPerf's gates expect, so a run passes the gates under
official settings. Where MLCommons' program scores the answers, they end in a letter, and a Parquet
file with the right letters is written for it (needs pyarrow). Every file is marked as a rehearsal.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import random
import shlex
import sys
from array import array
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sut.inputs import model, tokenized
from sut.plan import config
from sut.plan.document import read
from sut.rundir import write_atomic

DEFAULT = "llama3.1-8b"
NOTE = "Rehearsal only: generated data, a replay engine instead of a model. Not an MLPerf result."
# Fields of a system that a site describes: docs/submission.md.
NOT_MEASURED = (
    "system_name",
    "host_memory_configuration",
    "host_storage_type",
    "host_storage_capacity",
    "host_networking",
    "host_networking_topology",
    "host_network_card_count",
    "cooling",
)
SEED = 2026
VOCABULARY = 2_000  # words
SENTENCE = (8, 14)  # words
FILLER = (6, 12)  # sentences of an article in addition to its reference
ARTICLES_ANSWER = 85.0  # tokens of the mean reference of an article
LONGEST_PROMPT = 2_048  # tokens, where the model's context has room for more
SPREAD = 0.2  # of the lengths of answers: the standard deviation of their logarithm
RIGHT = 0.85  # share of answers that end in the right letter, for MLCommons' program
SHORTER = 0.25  # a separate accuracy test has shorter answers than the reference's 9,999 tokens
SERVER_S = 622  # of one pass of the data in Server: more than mlperf.conf's 600 s
STEP_S = 0.01  # of the replay engine


class DataSet(NamedTuple):
    """A data set of a benchmark. ``mode`` is that of its tests; ``key`` leads to what contains it
    in the benchmark's document; answers are in tokens. ``scored``: MLCommons' program reads the
    answers."""

    mode: str
    key: tuple[str, ...]
    num_samples: int
    longest_prompt: int
    mean_answer: float
    longest_answer: int
    scored: bool = False

    @property
    def name(self) -> str:
        return f"rehearsal-{self.mode}"


def main() -> int:
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(__doc__)
        return 0
    if not 2 <= len(sys.argv) <= 3 or sys.argv[1].startswith("-"):
        print("usage: python tools/rehearsal.py FOLDER [BENCHMARK]", file=sys.stderr)
        return 2
    folder, name = Path(sys.argv[1]).resolve(), (*sys.argv[2:], DEFAULT)[0]
    make(folder, name)
    print("\n".join(next_commands(folder)))
    return 0


def next_commands(folder: Path) -> list[str]:
    """The commands that run, score and package the rehearsal in ``folder``."""
    where = shlex.quote(str(folder))
    document = read(folder / "rehearsal.yaml")
    modes = ["all"]
    if "accuracy_test" in document:
        modes = [each.mode for each in data_sets(document)] + ["compliance"]
    commands = []
    for scenario, mode in itertools.product(("offline", "server"), modes):
        commands.append(
            f"python -m sut.submit --config {where}/rehearsal.yaml --site {where}/site.yaml "
            f"--scenario {scenario} --mode {mode} --preset official"
        )
        if (letters := letters_file(folder, mode)).is_file():
            commands.append(
                f"python -m sut.score latest --site {where}/site.yaml --inference inference "
                f"--references {shlex.quote(str(letters))}"
            )
    package = "python -m sut.package --submitter Example --division closed --preview"
    return [*commands, f"{package} --site {where}/site.yaml {where}/runs/*official"]


def make(folder: Path, name: str = DEFAULT, num: int | None = None) -> None:
    """Write the files of a rehearsal of the benchmark ``name``. ``num``: samples of each data set,
    for short runs."""
    official = read(config.shipped("benchmarks", name))
    found, vocabulary = data_sets(official), words()
    document = benchmark(official, found)
    for each in found:
        count = num or each.num_samples
        if official["dataset"]["kind"] == "tokenized":
            content = make_tokenized(folder, each, vocabulary, count)
        else:
            characters = official["accuracy"]["reference"]["gen_len"] / each.num_samples
            articles = make_articles(vocabulary, count, characters)
            content = json.dumps(articles, indent=1).encode()
        write_atomic(folder / each.name, content)
        _at(document, each.key)["dataset"] |= {"sha256": hashlib.sha256(content).hexdigest()}
    write_yaml(folder / "rehearsal.yaml", document)
    write_yaml(folder / "site.yaml", site(folder, found))


def data_sets(document: dict[str, Any]) -> list[DataSet]:
    """Those of a benchmark's document, that of the performance test first."""
    mean = document["accuracy"]["reference"].get("tokens_per_sample", ARTICLES_ANSWER)
    room = document["engine"]["max_model_len"]
    compliance = document.get("compliance", {})

    def of(mode: str, key: tuple[str, ...], mean: float) -> DataSet:
        holder = _at(document, key)
        longest = holder.get("generation", document["generation"])["max_tokens"]
        prompt = min(room - longest, LONGEST_PROMPT)
        num, scored = holder["dataset"]["num_samples"], mode != "performance"
        return DataSet(mode, key, num, prompt, mean, longest, scored)

    bounds = compliance.get("output_tokens")
    found = [of("performance", (), (bounds["low"] + bounds["high"]) / 2 if bounds else mean)]
    if "accuracy_test" in document:
        found.append(of("accuracy", ("accuracy_test",), SHORTER * mean))
    if "test07" in compliance:
        found.append(of("test07", ("compliance", "test07"), SHORTER * mean))
    return found


def _at(document: dict[str, Any], key: tuple[str, ...]) -> dict[str, Any]:
    for name in key:
        document = document[name]
    return document


def letters_file(folder: Path, mode: str) -> Path:
    """The right answers of a data set, for MLCommons' program."""
    return folder / f"{mode}-letters.parquet"


def words() -> list[str]:
    """Words that are one token of the embedded model, including the space before them."""
    content = json.loads((model.embedded() / "tokenizer.json").read_bytes())
    found = [
        token[1:]
        for token in content["model"]["vocab"]
        if token.startswith("Ġ") and token.isalpha() and 5 <= len(token) <= 13
    ]
    plain = [word for word in found if word.isascii() and word.islower()]
    return random.Random(SEED).sample(plain, VOCABULARY)


def make_articles(
    vocabulary: list[str], num: int, reference_characters: float
) -> list[dict[str, str]]:
    """``num`` samples in the form of MLCommons' cnn_eval.json. The mean length of their references
    is ``reference_characters``."""
    source = random.Random(SEED)
    return [_article(source, vocabulary, index, reference_characters) for index in range(num)]


def _article(
    source: random.Random, vocabulary: list[str], index: int, characters: float
) -> dict[str, str]:
    reference = [_sentence(source, vocabulary)]
    # The last sentence exceeds the length by half of itself on average: leave out every other one.
    while sum(map(len, reference)) + len(reference) + source.uniform(0, 100) < characters:
        reference.append(_sentence(source, vocabulary))
    text = reference + [_sentence(source, vocabulary) for _ in range(source.randint(*FILLER))]
    source.shuffle(text)
    return {
        "instruction": NOTE,
        "input": f"Article {index}, generated for a rehearsal. {' '.join(text)}",
        "output": " ".join(reference),
    }


def make_tokenized(folder: Path, data: DataSet, vocabulary: list[str], num: int) -> bytes:
    """The content of a file of ``num`` samples as :mod:`sut.convert` writes it. Of a data set that
    MLCommons' program scores, write the right letters."""
    source = random.Random(f"{SEED} {data.mode}")
    samples, letters = [], []
    for _ in range(num):
        length = source.lognormvariate(math.log(data.mean_answer) - SPREAD**2 / 2, SPREAD)
        reference = _text(source, vocabulary, min(round(length), data.longest_answer))
        if data.scored:
            letter = source.choice("ABCD")
            reference += f" Answer: {letter}"
            letters.append(letter if source.random() < RIGHT else source.choice("EFGH"))
        prompt = array("H", source.randbytes(2 * source.randint(1, data.longest_prompt)))
        tokens = [token % 30_000 for token in prompt]
        samples.append(tokenized.Sample(tokens, reference))
    if letters:
        _write_letters(letters_file(folder, data.mode), letters)
    return tokenized.encode(NOTE, "", samples)


def _text(source: random.Random, vocabulary: list[str], num_tokens: int) -> str:
    """Sentences of ``num_tokens`` tokens, three at least."""
    sentences = []
    while num_tokens > 0:
        num_words = source.randint(*SENTENCE)
        if num_tokens < num_words + 5:  # the last one
            num_words = max(1, num_tokens - 2)
        sentences.append(f"The {' '.join(source.choices(vocabulary, k=num_words))}.")
        num_tokens -= num_words + 2
    return " ".join(sentences)


def _write_letters(path: Path, letters: list[str]) -> None:
    """The columns that the program of gpt-oss-120b reads."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        sys.exit(f"error: Parquet needs pyarrow\nhint: {sys.executable} -m pip install pyarrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"dataset": ["gpqa_diamond"] * len(letters), "ground_truth": letters}
    parquet.write_table(pyarrow.table(columns), path)


def _sentence(source: random.Random, vocabulary: list[str]) -> str:
    chosen = source.choices(vocabulary, k=source.randint(*SENTENCE))
    return f"The {' '.join(chosen)}."


def benchmark(official: dict[str, Any], found: list[DataSet]) -> dict[str, Any]:
    """The official benchmark's document with model and data replaced."""
    document = copy.deepcopy(official)
    for each in found:
        data = _at(document, each.key)["dataset"]
        data["name"] = each.name
        data.pop("source_md5", None)
        if data["kind"] == "cnn_eval":
            data["bos"] = False
    num, engine = found[0].num_samples, _engine(official, found)
    answers_per_s = engine["max_num_seqs"] / STEP_S / found[0].mean_answer
    return document | {
        "name": f"{official['name']}-rehearsal",
        "description": NOTE,
        "official": False,
        "model": {
            "name": model.EMBEDDED,  # for its tokenizer
            "embedded": True,
            "loadgen_name": official["model"]["loadgen_name"],
        },
        "engine": engine,
        "scenarios": {
            "server": {"target_qps": num / SERVER_S},
            # LoadGen issues 10% more than 600 s of it, in whole passes of the data.
            "offline": {"target_qps": round(0.95 * answers_per_s, 3)},
        },
        "presets": {},
    }


def _engine(official: dict[str, Any], found: list[DataSet]) -> dict[str, Any]:
    """A replay engine that is fast enough for each data set at the load of Server."""
    qps = found[0].num_samples / SERVER_S
    first, *others = (qps * each.mean_answer for each in found)
    tokens_per_s = max([1.75 * first, *(1.3 * each for each in others)])
    return {
        "kind": "replay",
        "max_model_len": official["engine"]["max_model_len"],
        "max_num_seqs": math.ceil(tokens_per_s * STEP_S),
        "max_num_batched_tokens": 8192,
        "replay": {
            "answers": "references",
            "prefill_tokens_per_s": 1_000_000,
            "step_base_us": round(1e6 * STEP_S),
            "step_per_sequence_us": 0,
        },
    }


def site(folder: Path, found: list[DataSet]) -> dict[str, Any]:
    return {
        "name": "rehearsal",
        "description": NOTE,
        "device": "cpu",
        "run_root": str(folder / "runs"),
        "datasets": {each.name: str(folder / each.name) for each in found},
        "system": {"status": "rdi", **dict.fromkeys(NOT_MEASURED, "rehearsal, no real system")},
    }


def write_yaml(path: Path, document: dict[str, Any]) -> None:
    text = f"# {NOTE}\n{yaml.safe_dump(document, sort_keys=False, width=100)}"
    write_atomic(path, text)


if __name__ == "__main__":
    sys.exit(main())
