"""Rehearse a submission without the model and without MLCommons' data.

Usage: python tools/rehearsal.py FOLDER  (next steps: docs/submission.md)

Writes into FOLDER as many generated articles as the data set of llama3.1-8b has, a benchmark with
the settings of llama3.1-8b whose replay engine answers with the references, and a site. The
references have the length that MLPerf's gates expect, so a run passes the gates under official
settings. Every file is marked as a rehearsal.
"""

from __future__ import annotations

import hashlib
import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from sut.inputs import model
from sut.plan import config
from sut.plan.document import read
from sut.rundir import write_atomic

OFFICIAL = "llama3.1-8b"
NOTE = (
    "Rehearsal only: generated articles, a replay engine instead of a model. Not an MLPerf result."
)
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


def main() -> int:
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(__doc__)
        return 0
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python tools/rehearsal.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1]).resolve()
    make(folder)
    print("\n".join(next_commands(folder)))
    return 0


def next_commands(folder: Path) -> list[str]:
    """The commands that run and package the rehearsal in ``folder``."""
    where = shlex.quote(str(folder))
    runs = [
        f"python -m sut.submit --config {where}/rehearsal.yaml --site {where}/site.yaml "
        f"--scenario {scenario} --mode all --preset official"
        for scenario in ("offline", "server")
    ]
    package = "python -m sut.package --submitter Example --division closed --preview"
    return [*runs, f"{package} --site {where}/site.yaml {where}/runs/*official"]


def make(folder: Path, num_articles: int | None = None) -> None:
    """Write the files. ``num_articles`` is for short runs."""
    document = read(config.shipped("benchmarks", OFFICIAL))
    num = document["dataset"]["num_samples"]
    characters = document["accuracy"]["reference"]["gen_len"] / num
    articles = make_articles(words(), num_articles or num, characters)
    data = json.dumps(articles, indent=1).encode()
    write_atomic(folder / "articles.json", data)
    write_yaml(folder / "rehearsal.yaml", benchmark(document, hashlib.sha256(data).hexdigest()))
    write_yaml(folder / "site.yaml", site(folder))


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


def _sentence(source: random.Random, vocabulary: list[str]) -> str:
    chosen = source.choices(vocabulary, k=source.randint(*SENTENCE))
    return f"The {' '.join(chosen)}."


def benchmark(official: dict[str, Any], data_sha256: str) -> dict[str, Any]:
    """The official benchmark's document with model and data set replaced."""
    return official | {
        "name": f"{OFFICIAL}-rehearsal",
        "description": NOTE,
        "official": False,
        "model": {
            "name": model.EMBEDDED,  # for its tokenizer
            "embedded": True,
            "loadgen_name": official["model"]["loadgen_name"],
        },
        "dataset": official["dataset"]
        | {"name": "rehearsal-articles", "bos": False, "sha256": data_sha256},
        "engine": {
            "kind": "replay",
            "max_model_len": official["engine"]["max_model_len"],
            "max_num_seqs": 32,
            "max_num_batched_tokens": 8192,
            "replay": {
                "answers": "references",
                "prefill_tokens_per_s": 1_000_000,
                "step_base_us": 10_000,
                "step_per_sequence_us": 0,
            },
        },
        # The engine gives about 38 answers/s. Offline takes two passes of the data, Server one;
        # each lasts more than the 600 s of mlperf.conf.
        "scenarios": {"server": {"target_qps": 21.5}, "offline": {"target_qps": 36}},
        "presets": {},
    }


def site(folder: Path) -> dict[str, Any]:
    return {
        "name": "rehearsal",
        "description": NOTE,
        "device": "cpu",
        "run_root": str(folder / "runs"),
        "datasets": {"rehearsal-articles": str(folder / "articles.json")},
        "system": {"status": "rdi", **dict.fromkeys(NOT_MEASURED, "rehearsal, no real system")},
    }


def write_yaml(path: Path, document: dict[str, Any]) -> None:
    text = f"# {NOTE}\n{yaml.safe_dump(document, sort_keys=False, width=100)}"
    write_atomic(path, text)


if __name__ == "__main__":
    sys.exit(main())
