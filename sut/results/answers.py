"""The answers LoadGen logged, ``mlperf_log_accuracy.json``, of an accuracy or compliance test."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from sut.errors import InputError
from sut.results.mllog import AS_WRITTEN
from sut.values import Struct

FILE_NAME = "mlperf_log_accuracy.json"
_HEX_INT32 = re.compile("(?:[0-9A-Fa-f]{8})*")


class Answer(Struct, frozen=True, kw_only=True):
    """One logged answer. ``first_tokens`` are the token ids reported at its first token;
    ``counted`` is the number of tokens reported to LoadGen, None in a log without it."""

    sample: int
    tokens: tuple[int, ...]
    first_tokens: tuple[int, ...]
    counted: int | None

    @property
    def num_reported(self) -> int:
        return len(self.tokens) if self.counted is None else self.counted


def read(log_dir: Path) -> list[Answer]:
    """The answers in ``log_dir``, a folder or the file. Raises InputError for a log that is
    missing, damaged or empty."""
    path = log_dir / FILE_NAME if log_dir.is_dir() else log_dir
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}",
            hint="pass the log folder of an accuracy or a compliance test",
        ) from None
    return parse(path, content)


def parse(path: Path, content: bytes) -> list[Answer]:
    """The answers in the file's ``content``. Raises InputError, naming ``path``."""
    try:
        entries = json.loads(content)
        if not isinstance(entries, list) or not entries:
            raise InputError(
                f"{path}: contains no answers",
                hint="pass the log of an accuracy or a compliance test",
            )
        return [_answer(place, entry) for place, entry in enumerate(entries, start=1)]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged or truncated: {error}", hint=AS_WRITTEN) from None


def _answer(place: int, entry: object) -> Answer:
    """LoadGen logs token ids as hex of little-endian int32."""
    match entry:
        case {"qsl_idx": int(sample), "data": str(data), **rest}:
            first, counted = rest.get("token_data", ""), rest.get("token_count")
            are_tokens = _are_tokens(data) and _are_tokens(first)
            if are_tokens and isinstance(counted, int | None) and not isinstance(counted, bool):
                return Answer(
                    sample=sample,
                    tokens=_tokens(data),
                    first_tokens=_tokens(str(first)),
                    counted=counted,
                )
    raise ValueError(
        f"entry {place} is not an answer with qsl_idx, data and token_data (int32 token ids in "
        "hex), and token_count"
    )


def _are_tokens(text: object) -> bool:
    return isinstance(text, str) and _HEX_INT32.fullmatch(text) is not None


def _tokens(text: str) -> tuple[int, ...]:
    data = bytes.fromhex(text)
    return struct.unpack(f"<{len(data) // 4}i", data)
