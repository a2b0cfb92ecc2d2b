"""The samples of a run: token ids in, reference texts beside them.

Tokenizing is done once and kept under the cache folder, by the hash of everything it
depends on; a second load reads that file and imports no tokenizer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from array import array
from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.inputs import wheels
from sut.inputs.cache import cache_dir
from sut.plan.benchmark import Dataset, DatasetKind, EngineKind, ReplayAnswers
from sut.plan.plan import Plan
from sut.rundir import write_atomic

CACHE_VERSION = 1  # raise it when the same inputs are to give other samples
SYNTHETIC_VOCABULARY = 32_000
SYNTHETIC_SEED = 2026


class Samples(msgspec.Struct, frozen=True):
    """A data set, by sample index."""

    prompts: list[list[int]]  # token ids, BOS included where the data set wants it
    references: list[str]  # what the answers are scored against; empty for synthetic data
    sha256: str  # of the data file; of the token ids where there is none


class Item(msgspec.Struct, frozen=True):
    """An article and the summary its answer is scored against."""

    text: str
    reference: str


def load(plan: Plan, model_path: Path | None) -> Samples:
    """The first ``num_samples`` samples of the plan's data set, tokenized for the model in
    ``model_path`` (not needed by synthetic data).

    Raises InputError for data that can't be read, aren't what the plan says or don't fit
    the engine, and SutError where embedded data can't be fetched.
    """
    dataset = plan.dataset
    if dataset.kind is DatasetKind.SYNTHETIC:
        samples = synthetic(dataset)
    else:
        if model_path is None:
            raise InputError(
                f"data set {dataset.name} needs a tokenizer, and this run has no model. "
                "Use synthetic data, or a benchmark with a model."
            )
        path = _file(dataset)
        samples = _tokenized(dataset, path, _read(path), model_path)
    _check_fit(plan, samples)
    return samples


def replay_answers(plan: Plan, samples: Samples, model_path: Path | None) -> list[list[int]]:
    """The references as token ids, where the plan's replay engine is to answer with them; else
    nothing. Raises InputError for one that is longer than an answer may be."""
    engine = plan.engine
    if engine.kind is EngineKind.VLLM or engine.replay.answers is ReplayAnswers.ECHO:
        return []
    assert model_path is not None, "only synthetic data do without a tokenizer, and they echo"
    encode = _Encoder(model_path / "tokenizer.json", None)
    answers = [encode(reference) for reference in samples.references]
    most = plan.generation.max_tokens
    long = [i for i, answer in enumerate(answers) if len(answer) > most]
    if long:
        raise InputError(
            f"data set {plan.dataset.name}: {len(long)} references (sample {long[0]} first) are "
            f"longer than generation.max_tokens {most}, so the replay engine can't answer with "
            "them. Raise it, or set engine.replay.answers to echo."
        )
    return answers


def synthetic(dataset: Dataset) -> Samples:
    """Token ids from a fixed seed; lengths uniform between the two bounds, both included."""
    shortest, longest = dataset.min_prompt_tokens, dataset.max_prompt_tokens
    if not 1 <= shortest <= longest:
        raise InputError(
            f"data set {dataset.name}: prompts of {shortest} to {longest} tokens can't be made. "
            "Set 1 <= dataset.min_prompt_tokens <= dataset.max_prompt_tokens."
        )
    source = random.Random(SYNTHETIC_SEED)
    digest = hashlib.sha256()
    prompts = []
    for _ in range(dataset.num_samples):
        ids = source.randbytes(2 * source.randint(shortest, longest))
        digest.update(ids)
        prompts.append([value % SYNTHETIC_VOCABULARY for value in array("H", ids)])
    return Samples(prompts, [], digest.hexdigest())


def read_news(path: Path, data: bytes) -> list[Item]:
    """One article a line; its first sentence, by nltk's punkt, is the reference."""
    from nltk.tokenize.punkt import PunktTokenizer

    wheels.add_nltk_data(wheels.nltk_data())
    punkt = PunktTokenizer("english")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}. Fetch the file again.") from None
    items = []
    for line in lines:
        article = line.strip()
        end = next((end for _, end in punkt.span_tokenize(article)), 0)
        items.append(Item(text=article[end:].strip(), reference=article[:end]))
    return items


def read_cnn_eval(path: Path, data: bytes) -> list[Item]:
    """MLCommons' JSON: a list of objects, of which ``input`` and ``output`` are read."""
    try:
        entries = json.loads(data)
    except ValueError as error:
        raise InputError(
            f"{path}: malformed or cut: {error}. Fetch the file again, as MLCommons' "
            "download script for this benchmark makes it."
        ) from None
    if not isinstance(entries, list):
        raise InputError(f"{path}: not a list of samples. Give MLCommons' cnn_eval.json.")
    return [_cnn_item(path, index, entry) for index, entry in enumerate(entries)]


def _cnn_item(path: Path, index: int, entry: object) -> Item:
    match entry:
        case {"input": str(text), "output": str(reference)}:
            return Item(text, reference)
        case dict():
            wrong = next(k for k in ("input", "output") if not isinstance(entry.get(k), str))
            what = "is not a text" if wrong in entry else "is missing"
            raise InputError(
                f"{path}: item {index}: {wrong} {what}. Give MLCommons' cnn_eval.json."
            )
        case _:
            raise InputError(f"{path}: item {index} is not an object. Give MLCommons' file.")


def _file(dataset: Dataset) -> Path:
    if dataset.path:
        return Path(dataset.path).expanduser()
    if dataset.kind is DatasetKind.NEWS:
        return wheels.news_articles()
    raise InputError(
        f"data set {dataset.name} has no path. Give it in the site file, under datasets: "
        f"{dataset.name}, or with --set dataset.path=FILE."
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: can't be read: {error.strerror}. Correct the data set's path in the site "
            "file, or put the file there."
        ) from None


def _tokenized(dataset: Dataset, path: Path, data: bytes, model_path: Path) -> Samples:
    sha256 = hashlib.sha256(data).hexdigest()
    if dataset.sha256 and sha256 != dataset.sha256:
        raise InputError(
            f"{path}: has sha256 {sha256}, and data set {dataset.name} has {dataset.sha256}. "
            "Fetch the file again, or take dataset.sha256 out to run unofficially with this one."
        )
    tokenizer_file = model_path / "tokenizer.json"
    bos = _bos(model_path) if dataset.bos else None
    settings = {
        "version": CACHE_VERSION,
        "data": sha256,
        "tokenizer": hashlib.sha256(_read(tokenizer_file)).hexdigest(),
        "bos": bos,
        "kind": dataset.kind,
        "num_samples": dataset.num_samples,
        "prompt": dataset.prompt,
        "max_prompt_tokens": dataset.max_prompt_tokens,
    }
    key = hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()
    cache = cache_dir() / "samples" / f"{dataset.name}-{key[:16]}.msgpack"
    samples = _read_cache(cache)
    if samples is None:
        items = _items(dataset, path, data)
        encode = _Encoder(tokenizer_file, bos)
        prompts = [_prompt(dataset, path, i, item.text, encode) for i, item in enumerate(items)]
        samples = Samples(prompts, [item.reference for item in items], sha256)
        _write_cache(cache, samples)
    return samples


def _items(dataset: Dataset, path: Path, data: bytes) -> list[Item]:
    """The first ``num_samples`` items of a file, none of them empty."""
    items = read_news(path, data) if dataset.kind is DatasetKind.NEWS else read_cnn_eval(path, data)
    if len(items) < dataset.num_samples:
        raise InputError(
            f"{path}: holds {len(items)} samples, and data set {dataset.name} has "
            f"{dataset.num_samples}. Fetch the file again, or set dataset.num_samples lower to run "
            "unofficially with what there is."
        )
    items = items[: dataset.num_samples]
    for what in ("text", "reference"):
        empty = [i for i, item in enumerate(items) if not getattr(item, what).strip()]
        if empty:
            raise InputError(
                f"{path}: the {what} of {len(empty)} of its samples is empty, of sample "
                f"{empty[0]} (from 0) first. A run needs an article and a summary for each; mend "
                "the file or fetch it again."
            )
    return items


def _bos(model_path: Path) -> int:
    """The id that config.json names as ``bos_token_id``."""
    file = model_path / "config.json"
    try:
        bos = json.loads(_read(file)).get("bos_token_id")
    except (ValueError, AttributeError):
        bos = None
    if not isinstance(bos, int):
        raise InputError(f"{file}: names no bos_token_id, and the data set wants one (dataset.bos)")
    return bos


class _Encoder:
    """Text to token ids, by the model's tokenizer and nothing that a chat template adds."""

    def __init__(self, tokenizer_file: Path, bos: int | None) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises Exception itself
            raise InputError(f"{tokenizer_file}: not a tokenizer: {error}") from None
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
    """The token ids of a sample's prompt; its article is cut where the prompt is too long."""
    ids = encode(dataset.prompt.replace("{input}", text))
    while dataset.max_prompt_tokens and len(ids) > dataset.max_prompt_tokens:
        text = encode.cut(text, len(ids) - dataset.max_prompt_tokens)
        if not text:
            raise InputError(
                f"{path}: sample {index}: dataset.max_prompt_tokens {dataset.max_prompt_tokens} "
                "leaves no room for the article beside dataset.prompt"
            )
        ids = encode(dataset.prompt.replace("{input}", text))
    return ids


def _check_fit(plan: Plan, samples: Samples) -> None:
    """Every prompt and its answer must fit the engine: vLLM would refuse or cut it."""
    room = plan.engine.max_model_len - plan.generation.max_tokens
    long = [i for i, prompt in enumerate(samples.prompts) if len(prompt) > room]
    if long:
        longest = max(len(samples.prompts[i]) for i in long)
        raise InputError(
            f"data set {plan.dataset.name}: {len(long)} prompts (sample {long[0]} first) are "
            f"longer than {room} tokens, what engine.max_model_len {plan.engine.max_model_len} "
            f"leaves beside answers of {plan.generation.max_tokens}. The longest has {longest}: "
            f"--set engine.max_model_len={longest + plan.generation.max_tokens}"
        )


def _read_cache(path: Path) -> Samples | None:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Samples)
    except (OSError, msgspec.MsgspecError):
        return None


def _write_cache(path: Path, samples: Samples) -> None:
    with contextlib.suppress(OSError):  # only slower the next time
        write_atomic(path, msgspec.msgpack.encode(samples))
