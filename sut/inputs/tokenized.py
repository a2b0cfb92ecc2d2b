"""Prompts as token ids with their references, in JSON lines.

The first line is a header, each other line a sample: ``{"tokens": [1, 2], "reference": "text"}``.
``python -m sut.convert`` writes it from MLCommons' files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sut.errors import InputError
from sut.units import quantity
from sut.values import UNDECODABLE

MAX_TOKEN = 2**31 - 1  # the engine and LoadGen's log take int32
_HINT = "convert MLCommons' file again: python -m sut.convert"


class Header(msgspec.Struct, frozen=True):
    """The first line: the file that was converted, and its MD5 sum, without its compression."""

    format: Literal["mlperf-sut-tokens-1"]
    source: str
    source_md5: str
    num_samples: int


class Sample(msgspec.Struct, frozen=True):
    """``reference`` is empty where the file has none."""

    tokens: Annotated[
        list[Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKEN)]], msgspec.Meta(min_length=1)
    ]
    reference: str = ""


def encode(source: str, source_md5: str, samples: Sequence[Sample]) -> bytes:
    header = Header("mlperf-sut-tokens-1", source, source_md5, len(samples))
    encoder = msgspec.json.Encoder()
    return b"".join(encoder.encode(line) + b"\n" for line in (header, *samples))


def read(path: Path, data: bytes) -> tuple[Header, list[Sample]]:
    """The content of a file. Raises InputError for one that is damaged or of another format."""
    lines = data.split(b"\n")
    try:
        header = msgspec.json.decode(lines[0], type=Header)
    except UNDECODABLE:
        raise InputError(f"{path}: not a file of token ids, or damaged", hint=_HINT) from None
    decoder = msgspec.json.Decoder(Sample)
    samples = []
    for index, line in enumerate(lines[1:-1]):
        try:
            samples.append(decoder.decode(line))
        except UNDECODABLE as error:
            raise InputError(f"{path}: sample {index}: {error}", hint=_HINT) from None
    if lines[-1] or len(samples) != header.num_samples:
        raise InputError(
            f"{path}: truncated: {quantity(len(samples), 'samples')} of {header.num_samples}",
            hint=_HINT,
        )
    return header, samples
