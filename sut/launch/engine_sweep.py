"""Values of the engine's limits to compare: ``--sweep engine.KEY=A,B,...``."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

from sut.errors import InputError, nearest

KEYS = ("engine.max_num_seqs", "engine.max_num_batched_tokens")
MOST = 1_000_000
NUM_BEST = 3  # of the simulated settings: measured
TEST_S = 20.0  # length of the tests of the first round

Swept = tuple[str, tuple[int, ...]]  # a key of the benchmark, and its values
Setting = dict[str, int]  # one value of each key that is swept


def parse(text: str) -> Swept:
    """``engine.max_num_seqs=8,16,32``. Raises ArgumentTypeError."""
    key, _, values = text.partition("=")
    parts = values.split(",")
    if key.strip() not in KEYS:
        raise argparse.ArgumentTypeError(
            f"{text}: only {' and '.join(KEYS)} can be swept here{nearest(key, KEYS)}"
        )
    if not all(part.strip().isdecimal() and 0 < int(part) <= MOST for part in parts):
        raise argparse.ArgumentTypeError(f"{text}: expected whole numbers, e.g. {key}=8,16,32")
    return key.strip(), tuple(dict.fromkeys(map(int, parts)))


def settings(sweep: Sequence[Swept]) -> list[Setting]:
    """Each combination of the values. Raises InputError for a key that is given twice."""
    keys = [key for key, _ in sweep]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(
            f"--sweep {twice[0]} is given twice",
            hint=f"give all its values at once: {twice[0]}=8,16",
        )
    values = itertools.product(*(each for _, each in sweep))
    return [dict(zip(keys, each, strict=True)) for each in values]


def sets(setting: Setting) -> list[str]:
    """The changes that ``--set`` takes."""
    return [f"{key}={value}" for key, value in setting.items()]


def text(setting: Setting) -> str:
    """``max_num_seqs 8, max_num_batched_tokens 256``."""
    return ", ".join(f"{key.removeprefix('engine.')} {value:,}" for key, value in setting.items())
