"""The structs of vLLM's engine-core protocol that this program reads or writes, by vLLM version.

vLLM's protocol is internal to it: the structs travel as arrays without field names, or as maps, and
any version may change them. ``vllm_layouts.toml`` describes those of the versions that were tested,
and an engine compares its own with it before it loads a model. :mod:`tools.vllm_layouts` writes
the description of another version; docs/upgrading-vllm.md.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from sut.errors import RunError

FILE = Path(__file__).with_suffix(".toml")

Structs = dict[str, tuple[str, ...]]  # by struct, its fields in order

# Arrays on the wire, so that a field is known by its position. A finish reason is one, too: the
# position of its name is its number.
POSITIONAL = ("EngineCoreRequest", "EngineCoreOutputs", "EngineCoreOutput", "FinishReason")
# Maps on the wire, and the keys that are read. The others may come and go.
READ = {
    "EngineCoreReadyResponse": ("max_model_len", "max_num_seqs", "vllm_version"),
    "SchedulerStats": (
        *("num_running_reqs", "num_waiting_reqs", "kv_cache_usage"),
        *("prefix_cache_stats", "connector_prefix_cache_stats", "spec_decoding_stats"),
    ),
    "PrefillStats": ("num_cached_tokens",),
    "PrefixCacheStats": ("hits", "preempted_hits"),
    "SpecDecodingStats": ("num_draft_tokens",),
}


@functools.cache
def tested() -> dict[str, Structs]:
    """By vLLM version, oldest first."""
    return msgspec.convert(tomllib.loads(FILE.read_text()), dict[str, Structs])


def release(version: str) -> str:
    """A version without its local part, which names a build: 0.32.0 of 0.32.0+cpu."""
    return version.partition("+")[0]


def is_tested(version: str) -> bool:
    return release(version) in tested()


def untested(version: str) -> str:
    """What to know of a version that is not in the list."""
    return f"vLLM {version} is not a tested version ({', '.join(tested())})"


def installed() -> Structs:
    """The structs of the installed vLLM. Imports it, which takes seconds.

    Raises RunError where vLLM has no such struct, or another form of it.
    """
    from vllm.v1 import engine
    from vllm.v1.metrics import stats
    from vllm.v1.spec_decode import metrics

    modules = (engine, stats, metrics)
    return {name: _fields(name, modules) for name in (*POSITIONAL, *READ)}


def check_installed() -> str:
    """Compare the installed vLLM's structs with the list. Imports vLLM. Returns what is worth a
    warning, or an empty string; raises RunError as :func:`check` does."""
    from vllm.version import __version__

    return check(__version__, installed())


def check(version: str, found: Structs) -> str:
    """Compare a version's structs with those of the list: of this version, or, for one that is not
    in it, of any. Returns what is worth a warning, or an empty string.

    Raises RunError, which names the field, where one of an array is not at its place or a key that
    is read is missing. Fields at the end of an array, which no reader here knows, are skipped.
    """
    known = tested()
    like = {release(version): known[release(version)]} if is_tested(version) else known
    differences = {name: _differences(structs, found, name) for name, structs in like.items()}
    fitting = [name for name, found_ in differences.items() if not found_]
    if not fitting:
        newest, (first, *_) = list(differences.items())[-1]
        raise RunError(
            f"vLLM {version} has another layout than the tested {newest}: {first}",
            hint=f"install vLLM {' or '.join(known)}, or test this one: docs/upgrading-vllm.md",
            code="vllm_layout",
        )
    more = min((_more(known[name], found) for name in fitting), key=len)
    if not more and is_tested(version):
        return ""
    what = untested(version) if not is_tested(version) else f"this vLLM {version} was changed"
    return what + (f"; it adds {', '.join(more)}" if more else "; its layout is a tested one")


def _differences(known: Structs, found: Structs, version: str) -> list[str]:
    """What a reader of the ``known`` structs, which are a tested version's, would misread."""
    lines = []
    for name in POSITIONAL:
        for position, field in enumerate(known[name]):
            there = found[name][position] if position < len(found[name]) else None
            if there != field:
                what = "nothing" if there is None else there
                lines.append(
                    f"{name} has {what} at position {position}, where {version} has {field}"
                )
    for name, keys in READ.items():
        lines += [f"{name} has no {key}" for key in keys if key not in found[name]]
    return lines


def _more(known: Structs, found: Structs) -> list[str]:
    return [
        f"{name}.{field}"
        for name in (*POSITIONAL, *READ)
        for field in found[name]
        if field not in known[name]
    ]


def _fields(name: str, modules: tuple[Any, ...]) -> tuple[str, ...]:
    struct = next((getattr(module, name) for module in modules if hasattr(module, name)), None)
    if struct is None:
        raise _changed(f"vLLM has no {name}")
    if name == "FinishReason":
        members = sorted(struct, key=int)
        if [int(member) for member in members] != list(range(len(members))):
            raise _changed("the numbers of FinishReason have gaps")
        return tuple(member.name for member in members)
    if name in READ:
        if not dataclasses.is_dataclass(struct):
            raise _changed(f"{name} is no dataclass")
        return tuple(field.name for field in dataclasses.fields(struct))
    if not getattr(getattr(struct, "__struct_config__", None), "array_like", False):
        raise _changed(f"{name} is not sent as an array")
    return tuple(struct.__struct_fields__)


def _changed(problem: str) -> RunError:
    return RunError(
        f"{problem}: its engine-core protocol differs from the tested one",
        hint=f"install vLLM {' or '.join(tested())}, or test this one: docs/upgrading-vllm.md",
        code="vllm_layout",
    )
