"""``engine.extra_args``: checked against vLLM's options and against the keys of a plan.

vLLM's own parser takes seconds to import, and a login node has none: the options of each tested
version are in ``vllm_options.json``, which :mod:`tools.vllm_options` writes. Where the version is
unknown, as that in an image is at submission, an option of any of them is accepted.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sut.errors import Errors, nearest
from sut.values import Struct

OPTIONS_FILE = Path(__file__).with_name("vllm_options.json")

# What a run passes to vLLM itself, and the key that sets it.
KEYS = {
    "--dtype": "engine.dtype",
    "--max-model-len": "engine.max_model_len",
    "--max-num-seqs": "engine.max_num_seqs",
    "--max-num-batched-tokens": "engine.max_num_batched_tokens",
    "--tensor-parallel-size": "engine.tensor_parallel_size",
    "-tp": "engine.tensor_parallel_size",
    "--pipeline-parallel-size": "engine.pipeline_parallel_size",
    "-pp": "engine.pipeline_parallel_size",
    "--enforce-eager": "engine.enforce_eager",
    "--no-enforce-eager": "engine.enforce_eager",
    "--model": "model.name",
}
# What depends on the run's nodes and ports.
OURS = {
    "--headless",
    *("--data-parallel-address", "-dpa", "--data-parallel-rpc-port", "-dpp"),
    *("--data-parallel-size", "-dp", "--data-parallel-rank", "-dpn"),
    *("--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port"),
}


# What decides an engine without being on its command line, nor in the plan and the record.
FROM_ELSEWHERE = {
    "--config": "reads options from a file, which is not on record",
    "--io-processor-plugin": "loads code that is not on record",
    "--reasoning-parser-plugin": "loads code that is not on record",
    "--tool-parser-plugin": "loads code that is not on record",
}
# What MLPerf's rules forbid an engine: options, also with a part (--kv-transfer-config.kv_role).
FORBIDDEN = {
    "--enable-prefix-caching",
    *("--speculative-config", "-sc", "--spec-method", "--spec-model", "--spec-tokens"),
    *("--kv-transfer-config", "--kv-offloading-size"),
}


class Option(Struct, frozen=True, kw_only=True):
    """``values`` is how many values it takes: 0, 1, or -1 for any number. ``choices``: empty for
    any value."""

    values: int
    choices: tuple[str, ...] = ()


class _Given(NamedTuple):
    """An option as it was given. ``values`` are those after it, or after its ``=``."""

    word: str
    name: str  # without underscores and value
    option: Option
    values: list[str]
    is_part: bool  # of a JSON value: --hf-overrides.key


def check(extra_args: Sequence[str], errors: Errors, version: str | None = None) -> None:
    """Add to ``errors`` each word that vLLM would refuse, or that contradicts a key of the plan.
    ``version`` is the engine's, without its local part."""
    for given in _parsed(extra_args, errors, version):
        if given.name in KEYS:
            key = KEYS[given.name]
            errors.add(
                f"engine.extra_args contradicts {key}: {given.word}",
                hint=f"leave it out and set the key: --set {key}=VALUE",
            )
        elif given.name in OURS:
            errors.add(
                f"engine.extra_args: {given.word} depends on the run's nodes, which set it",
                hint="leave it out; one engine is a replica: --set site.num_replicas=N",
            )
        elif given.name in FROM_ELSEWHERE:
            errors.add(
                f"engine.extra_args: {given.word} {FROM_ELSEWHERE[given.name]}",
                hint="leave it out; write the options themselves in engine.extra_args",
            )
        else:
            _check_values(given, errors)


def forbidden(extra_args: Sequence[str]) -> list[str]:
    """The words that set what MLPerf's rules forbid an engine."""
    return [given.word for given in _parsed(extra_args, Errors()) if given.name in FORBIDDEN]


def has(extra_args: Sequence[str], name: str) -> bool:
    return any(given.name == name for given in _parsed(extra_args, Errors()))


def value(extra_args: Sequence[str], name: str) -> str | None:
    """The value of an option; of several the last one, as vLLM's parser does. None without one."""
    values = [given.values for given in _parsed(extra_args, Errors()) if given.name == name]
    return values[-1][0] if values and values[-1] else None


def _check_values(given: _Given, errors: Errors) -> None:
    option, values = given.option, given.values
    if option.values == 0 and values:
        errors.add(f"engine.extra_args: {given.name} takes no value: {given.word}")
    if option.values == 1 and not values:
        errors.add(f"engine.extra_args: {given.word} needs a value")
    for value in values if option.choices and not given.is_part else ():
        # Some options convert the case of their value.
        if value.lower() not in map(str.lower, option.choices):
            errors.add(
                f"engine.extra_args: {given.name} {value}: not one of vLLM's choices"
                f"{nearest(value, option.choices)}",
                hint=f"choose one of: {', '.join(option.choices)}",
            )


def _parsed(words: Sequence[str], errors: Errors, version: str | None = None) -> Iterator[_Given]:
    """The options in ``words``. Adds unknown ones, and words that belong to none, to ``errors``."""
    if not words:
        return
    options = _known(version)
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not _is_option(word):
            errors.add(
                f"engine.extra_args: '{word}' belongs to no option",
                hint="give a list of options and values: "
                """--set 'engine.extra_args=["--quantization", "fp8"]'""",
            )
            continue
        written, equals, value = _spelled_out(word).partition("=")
        base = written.partition(".")[0]
        if base not in options:
            errors.add(_no_option(base, version, options), hint="correct it, or leave it out")
            position += _num_values(words[position:])  # whatever it would take
            continue
        option = options[base]
        values = [value] if equals else []
        if not values and option.values != 0:
            most = 1 if option.values == 1 else len(words)
            count = min(most, _num_values(words[position:]))
            values = list(words[position : position + count])
            position += count
        yield _Given(word, base, option, values, "." in written)


def _spelled_out(word: str) -> str:
    """vLLM accepts underscores in place of dashes, and -O3 for --optimization-level=3."""
    if word.startswith("-O"):
        level = word.removeprefix("-O").removeprefix("=")
        return "--optimization-level" + (f"={level}" if level else "")
    name, equals, value = word.partition("=")
    key, dot, part = name.partition(".")
    key = "--" + key[2:].replace("_", "-") if key.startswith("--") else key
    return f"{key}{dot}{part}{equals}{value}"


def _no_option(name: str, version: str | None, options: Collection[str]) -> str:
    fitting = [each for each in options if name.startswith("--") and each.startswith(name)]
    if fitting:  # vLLM accepts an abbreviation that fits one option only
        return f"engine.extra_args: {name} is short for {' or '.join(fitting)}: write it in full"
    known = tables()
    who, verb = (version, "has") if version in known else (" and ".join(known), "have")
    others = [other for other, table in known.items() if name in table]
    hint = f"; {' and '.join(others)} has" if others else nearest(name, options)
    return f"engine.extra_args: vLLM {who} {verb} no option {name}{hint}"


def _is_option(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-\d+(\.\d*)?|-", word)


def _num_values(words: Sequence[str]) -> int:
    """How many of ``words`` come before the next option."""
    return next((i for i, word in enumerate(words) if _is_option(word)), len(words))


@functools.cache
def tables() -> dict[str, dict[str, Option]]:
    """The options by name, of each tested version of vLLM, oldest first."""
    return msgspec.json.decode(OPTIONS_FILE.read_bytes(), type=dict[str, dict[str, Option]])


@functools.cache
def _known(version: str | None) -> dict[str, Option]:
    """The options of a tested version; of any other, those of all tested versions."""
    known = tables()
    if version in known:
        return known[version]
    options: dict[str, Option] = {}
    for table in known.values():
        for name, option in table.items():
            older = options.get(name, option)
            either = older.choices and option.choices and sorted({*older.choices, *option.choices})
            options[name] = msgspec.structs.replace(option, choices=tuple(either))
    return options
