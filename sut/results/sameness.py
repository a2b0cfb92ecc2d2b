"""What runs, attempts and nodes were given, and where two of them differ.

Everything given is one flat mapping by the record's names: ``plan.engine.dtype``,
``packages.torch``, ``gpu_driver``, ``git.commit``, ``model_sha256``. Unknown values are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from sut.machine.environment import Environment
from sut.plan.plan import WITHOUT_EFFECT
from sut.results.record import Hashes, Record
from sut.units import quantity

DERIVED_FIELDS = frozenset({"plan.not_official_because"})  # they follow from other fields
NO_DIFFERENCE = frozenset(f"plan.{name}" for name in WITHOUT_EFFECT)

Facts = Mapping[str, Any]

WIDTH = 60  # of a list, a mapping or a text of several lines


class Mismatch(NamedTuple):
    """A fact that differs, its values as text: ``none`` if unknown, hashes shortened."""

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def mismatches(
    before: Facts, after: Facts, keys: Sequence[str] = (), *, ignore_unknown: bool = False
) -> list[Mismatch]:
    """Where ``before`` and ``after`` differ, sorted by key.

    A key selects itself and everything below it: ``plan.engine`` includes ``plan.engine.dtype``.
    No keys select everything. ``ignore_unknown`` skips facts that only one side has.
    """
    known = before.keys() & after.keys() if ignore_unknown else before.keys() | after.keys()
    return [
        Mismatch(key, _text(before.get(key)), _text(after.get(key)))
        for key in sorted(known)
        if before.get(key) != after.get(key)
        and (not keys or any(f"{key}.".startswith(f"{each}.") for each in keys))
    ]


def of_record(record: Record) -> dict[str, Any]:
    """Everything that a run was given, and the load it chose."""
    chosen = flat({"load": {"target_qps": record.load.target_qps}}) if record.load else {}
    return of_machine(record.environment, record.hashes) | flat({"plan": record.plan}) | chosen


def of_machine(environment: Environment, hashes: Hashes) -> dict[str, Any]:
    """Everything that a node was given but the plan."""
    gpus = sorted(f"{gpu.name} {gpu.memory_mib or '?'} MiB" for gpu in environment.gpus)
    files = flat(
        {
            "model_sha256": hashes.model,
            "data_sha256": hashes.data,
            "tokens_sha256": hashes.tokens,
        }
    )
    return flat(environment) | flat({"gpus": ", ".join(gpus)}) | files


def flat(value: Any) -> dict[str, Any]:
    """The leaves of structs and mappings by dotted keys. Lists are leaves."""
    return {
        key: leaf
        for key, leaf in _leaves(msgspec.to_builtins(value), "")
        if leaf not in (None, "", [], ()) and not _is_ignored(key)
    }


def _is_ignored(key: str) -> bool:
    return key in DERIVED_FIELDS or ".".join(key.split(".")[:2]) in NO_DIFFERENCE


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    if isinstance(value, list | tuple | dict):
        whole = msgspec.json.encode(value).decode()
        text = (
            whole
            if len(whole) <= WIDTH
            else f"{quantity(len(value), 'entries')}, {whole[:WIDTH]}..."
        )
    elif not text.isprintable():
        whole = msgspec.json.encode(text).decode()
        short = whole if len(whole) <= WIDTH else f'{whole[:WIDTH]}..."'
        text = f"{short} ({quantity(len(text), 'characters')})"
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b", r"\1", text)
