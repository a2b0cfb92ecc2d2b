"""The samples of a run: prompts as token ids, and reference texts.

Tokenized data is cached under the hash of everything it depends on. A second load reads that file
and imports no tokenizer.
"""

from __future__ import annotations

import hashlib
import random
import struct
from array import array
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import msgspec

from sut.errors import InputError
from sut.inputs import articles, cache, model_config, tokenized, wheels
from sut.inputs.articles import Item
from sut.plan.benchmark import Dataset, DatasetKind, EngineKind, ReplayAnswers
from sut.plan.plan import Plan
from sut.units import quantity

CACHE_VERSION = 2  # increment when the same inputs must give other samples
SYNTHETIC_VOCABULARY = 32_000
SYNTHETIC_SEED = 2026
_T = TypeVar("_T")


class Samples(msgspec.Struct, frozen=True):
    """A data set, by sample index."""

    prompts: list[list[int]]  # token ids, with BOS if the data set asks for it
    references: list[str]  # for scoring; empty for synthetic data
    sha256: str  # of the data file, or of synthetic token ids

    @property
    def prompt_lengths(self) -> list[int]:
        """In tokens, by index of the sample."""
        return [len(prompt) for prompt in self.prompts]

    def tokens_sha256(self) -> str:
        """sha256 of the prompts: of each one its length and its token ids, as little-endian
        int32."""
        digest = hashlib.sha256()
        for prompt in self.prompts:
            digest.update(struct.pack(f"<i{len(prompt)}i", len(prompt), *prompt))
        return digest.hexdigest()


class _Tokenized(msgspec.Struct, frozen=True):
    """An entry of the cache."""

    prompts: list[list[int]]
    references: list[str]


def load(plan: Plan, model_path: Path | None, *, use_cache: bool = True) -> Samples:
    """The first ``num_samples`` samples of the plan's data set, tokenized for the model in
    ``model_path``, which synthetic data does not need.

    Raises InputError for data that is unreadable, differs from the plan or does not fit the engine,
    SutError if embedded data cannot be fetched.
    """
    dataset = plan.dataset
    if dataset.kind is DatasetKind.SYNTHETIC:
        samples = synthetic(dataset)
    elif dataset.kind is DatasetKind.TOKENIZED:
        samples = _as_given(dataset)
    else:
        assert model_path is not None, "articles need a tokenizer"
        path = file_of(dataset)
        samples = _tokenized(dataset, path, _read(path), model_path, use_cache)
    _check_fit(plan, samples)
    return samples


def file_of(dataset: Dataset) -> Path:
    """The file of data that is not synthetic. Raises SutError if embedded data cannot be
    fetched."""
    return Path(dataset.path) if dataset.path else wheels.news_articles()


def replay_answers(plan: Plan, samples: Samples, model_path: Path | None) -> list[list[int]]:
    """The references as token ids if the plan's replay engine answers with them, else nothing.
    Raises InputError if one is longer than an answer may be."""
    engine = plan.engine
    if engine.kind is EngineKind.VLLM or engine.replay.answers is ReplayAnswers.ECHO:
        return []
    assert model_path is not None, "the replay engine echoes synthetic data"
    answers = _encoded(plan.dataset, samples, model_path / "tokenizer.json")
    most = plan.generation.max_tokens
    long = [i for i, answer in enumerate(answers) if len(answer) > most]
    if long:
        raise InputError(
            f"data set {plan.dataset.name}: {len(long)} references (sample {long[0]} first) are "
            f"longer than generation.max_tokens {most}, the replay engine's longest answer",
            hint=f"--set generation.max_tokens={max(map(len, answers))}, or "
            "--set engine.replay.answers=echo",
        )
    return answers


def _encoded(dataset: Dataset, samples: Samples, tokenizer_file: Path) -> list[list[int]]:
    """The references as token ids. Cached: millions of tokens take a busy machine so long that
    the engine, which waits for the data, gives up."""
    key = cache.key_of(
        data=samples.sha256,
        num_samples=len(samples.references),
        tokenizer=hashlib.sha256(_read(tokenizer_file)).hexdigest(),
        tokenizers=metadata.version("tokenizers"),
    )
    entry = cache.cache_dir() / "answers" / f"{dataset.name}-{key[:16]}.msgpack"
    answers = cache.read_entry(entry, key, list[list[int]])
    if answers is None:
        encode = _Encoder(tokenizer_file, None)
        answers = [encode(reference) for reference in samples.references]
        cache.write_entry(entry, key, answers)
    return answers


def synthetic(dataset: Dataset) -> Samples:
    """Token ids from a fixed seed; lengths uniform between the bounds, inclusive."""
    shortest, longest = dataset.min_prompt_tokens, dataset.max_prompt_tokens
    source = random.Random(SYNTHETIC_SEED)
    digest = hashlib.sha256()
    prompts = []
    for _ in range(dataset.num_samples):
        ids = source.randbytes(2 * source.randint(shortest, longest))
        digest.update(ids)
        prompts.append([value % SYNTHETIC_VOCABULARY for value in array("H", ids)])
    return Samples(prompts, [], digest.hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}",
            hint="copy the file there, or correct its path in the site's file",
        ) from None


def _checked_sha256(dataset: Dataset, path: Path, data: bytes) -> str:
    """Raises InputError for another file than the data set's."""
    sha256 = hashlib.sha256(data).hexdigest()
    if dataset.sha256 and sha256 != dataset.sha256:
        raise InputError(
            f"{path} is not data set {dataset.name}: its sha256 is {sha256}, not {dataset.sha256}",
            hint="""download it again, or run it unofficially: --set 'dataset.sha256=""'""",
        )
    return sha256


def _as_given(dataset: Dataset) -> Samples:
    """The samples of a file of token ids."""
    path = Path(dataset.path)
    data = _read(path)
    sha256 = _checked_sha256(dataset, path, data)
    header, found = tokenized.read(path, data)
    if dataset.source_md5 and header.source_md5 != dataset.source_md5:
        raise InputError(
            f"{path} is not data set {dataset.name}: it was converted from {header.source} with "
            f"MD5 {header.source_md5}, not {dataset.source_md5}",
            hint="""convert MLCommons' file: python -m sut.convert FILE OUTPUT; or run it """
            """unofficially: --set 'dataset.source_md5=""'""",
        )
    samples = _first(dataset, path, found)
    return Samples([each.tokens for each in samples], [each.reference for each in samples], sha256)


def _tokenized(
    dataset: Dataset, path: Path, data: bytes, model_path: Path, use_cache: bool
) -> Samples:
    sha256 = _checked_sha256(dataset, path, data)
    tokenizer_file = model_path / "tokenizer.json"
    bos = _bos(model_path) if dataset.bos else None
    key = cache.key_of(
        version=CACHE_VERSION,
        data=sha256,
        tokenizer=hashlib.sha256(_read(tokenizer_file)).hexdigest(),
        tokenizers=metadata.version("tokenizers"),
        bos=bos,
        kind=dataset.kind,
        num_samples=dataset.num_samples,
        prompt=dataset.prompt,
        max_prompt_tokens=dataset.max_prompt_tokens,
    )
    entry = cache.cache_dir() / "samples" / f"{dataset.name}-{key[:16]}.msgpack"
    known = cache.read_entry(entry, key, _Tokenized) if use_cache else None
    if known is None or {len(known.prompts), len(known.references)} != {dataset.num_samples}:
        items = _items(dataset, path, data)
        encode = _Encoder(tokenizer_file, bos)
        prompts = [_prompt(dataset, path, i, item.text, encode) for i, item in enumerate(items)]
        known = _Tokenized(prompts, [item.reference for item in items])
        cache.write_entry(entry, key, known)
    return Samples(known.prompts, known.references, sha256)


def _items(dataset: Dataset, path: Path, data: bytes) -> list[Item]:
    """The first ``num_samples`` items of a file, none of them empty."""
    news = dataset.kind is DatasetKind.NEWS
    items = articles.read_news(path, data) if news else articles.read_cnn_eval(path, data)
    items = _first(dataset, path, items)
    for what in ("text", "reference"):
        empty = [i for i, item in enumerate(items) if not getattr(item, what).strip()]
        if empty:
            raise InputError(
                f"{path}: empty {what} in {quantity(len(empty), 'samples')}, the first at index "
                f"{empty[0]}",
                hint="download the file again",
            )
    return items


def _first(dataset: Dataset, path: Path, items: list[_T]) -> list[_T]:
    """The first ``num_samples`` of a file's."""
    if len(items) < dataset.num_samples:
        raise InputError(
            f"{path}: contains {quantity(len(items), 'samples')}; data set {dataset.name} has "
            f"{dataset.num_samples}",
            hint="download it again, or run it unofficially: "
            f"--set dataset.num_samples={len(items)}",
        )
    return items[: dataset.num_samples]


def _bos(model_path: Path) -> int:
    _read(model_path / model_config.CONFIG)  # raises for a folder without one
    bos = model_config.bos_token_id(model_path)
    if bos is None:
        raise InputError(
            f"{model_path}: no bos_token_id in {model_config.CONFIG} or {model_config.GENERATION}, "
            "which dataset.bos requires",
            hint="--set dataset.bos=false",
        )
    return bos


class _Encoder:
    """Text to token ids with the model's tokenizer, without a chat template."""

    def __init__(self, tokenizer_file: Path, bos: int | None) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises plain Exception
            raise InputError(
                f"invalid tokenizer {tokenizer_file}: {error}", hint="download the model again"
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._bos = [] if bos is None else [bos]

    def __call__(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [*self._bos, *ids]

    def cut(self, text: str, num_tokens: int) -> str:
        """``text`` without its last ``num_tokens`` tokens."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return text[: offsets[-num_tokens][0]] if num_tokens < len(offsets) else ""


def _prompt(dataset: Dataset, path: Path, index: int, text: str, encode: _Encoder) -> list[int]:
    """The token ids of a sample's prompt. The article of a prompt that is too long is truncated."""
    ids = encode(dataset.prompt.replace("{input}", text))
    while dataset.max_prompt_tokens and len(ids) > dataset.max_prompt_tokens:
        text = encode.cut(text, len(ids) - dataset.max_prompt_tokens)
        if not text:
            raise InputError(
                f"{path}: sample {index}: dataset.max_prompt_tokens {dataset.max_prompt_tokens} "
                "leaves no room for the article in dataset.prompt"
            )
        ids = encode(dataset.prompt.replace("{input}", text))
    return ids


def _check_fit(plan: Plan, samples: Samples) -> None:
    """Raise InputError unless every prompt and its answer fit the engine: vLLM would refuse or
    truncate them."""
    room = plan.engine.max_model_len - plan.generation.max_tokens
    long = [i for i, prompt in enumerate(samples.prompts) if len(prompt) > room]
    if long:
        longest = max(len(samples.prompts[i]) for i in long)
        raise InputError(
            f"data set {plan.dataset.name}: {len(long)} prompts (sample {long[0]} first) are too "
            f"long: the longest has {longest} tokens, and engine.max_model_len "
            f"{plan.engine.max_model_len} minus generation.max_tokens {plan.generation.max_tokens} "
            f"leaves {room}",
            hint=f"--set engine.max_model_len={longest + plan.generation.max_tokens}",
        )
