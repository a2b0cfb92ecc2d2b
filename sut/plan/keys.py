"""Every key of a benchmark and a site, as ``--set`` takes it, from the structs and their comments.

A part of a key in capitals, e.g. in ``scenarios.SCENARIO.target_qps``, stands for any name.
"""

from __future__ import annotations

import difflib
import enum
import functools
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import inspect as types

from sut.errors import InputError
from sut.plan import comments
from sut.plan.benchmark import Benchmark, PerScenario, Presets, Scenario
from sut.plan.document import keys_of
from sut.plan.site import Site
from sut.values import Struct

# A benchmark must not have them.
FROM_SITE = (
    *("model.path", "dataset.path", "accuracy_test.dataset.path"),
    "compliance.test07.dataset.path",
)
SIMILAR = 0.7  # of 1; by difflib's default, path resembles sbatch
_SITE = "site"
_STAND_INS = {
    "target_qps": "BENCHMARK",
    "models": "MODEL",
    "datasets": "DATASET",
    "reference": "METRIC",
    "gates": "METRIC",
    "env": "VARIABLE",
    "sbatch": "OPTION",
}


class Key(Struct, frozen=True, kw_only=True):
    """One key. ``default`` is YAML, or ``required``; ``meaning`` may be empty. A ``group`` has keys
    of its own; ``--set`` replaces all of them."""

    name: str
    type: str
    default: str
    meaning: str
    group: bool = False

    @property
    def parts(self) -> list[str]:
        return self.name.split(".")


@functools.cache
def all_keys() -> tuple[Key, ...]:
    """Of a benchmark, then of a site, in the order of the structs; groups before their keys."""
    found = [key for key in _of_struct(Benchmark, "") if key.name not in FROM_SITE]
    return (*found, *_of_struct(Site, f"{_SITE}."))


def full(change: str, scenario: Scenario) -> str:
    """A ``--set key=value`` with the whole key: ``target_qps=5`` is
    ``scenarios.server.target_qps=5``. Raises InputError for a key that is unknown or ambiguous."""
    keys = keys_of(change)
    path, equals, value = change.partition("=")
    if not equals or not keys or keys[0] == _SITE or keys[0] in Benchmark.__struct_fields__:
        return change
    found = [key for key in all_keys() if not key.name.startswith("presets.") and _ends(key, keys)]
    own = [key for key in found if not key.name.startswith(f"{_SITE}.")]
    chosen = own or found
    whole = [_whole(key, path.strip(), len(keys), scenario) for key in chosen]
    if len(whole) == 1:
        return f"{whole[0]}={value}"
    if whole:
        raise InputError(
            f"--set {change}: ambiguous key",
            hint=f"choose one: {', '.join(f'--set {name}={value}' for name in whole)}",
        )
    raise InputError(
        f"--set {change}: unknown key{_nearest(keys, scenario)}",
        hint="list the keys: python -m sut.list keys",
    )


def _ends(key: Key, keys: Sequence[str]) -> bool:
    """Whether a key ends with these parts; the first must not be a stand-in."""
    last = key.parts[-len(keys) :]
    return (
        len(last) == len(keys)
        and last[0] == keys[0]
        and not last[0].isupper()
        and all(part == given or part.isupper() for part, given in zip(last, keys, strict=True))
    )


def _whole(key: Key, typed: str, num_typed: int, scenario: Scenario) -> str:
    before = [scenario if part == "SCENARIO" else part for part in key.parts[:-num_typed]]
    return ".".join([*before, typed])


def _nearest(keys: Sequence[str], scenario: Scenario) -> str:
    """The key whose last part or whole name is the most similar."""
    known: dict[str, str] = {}
    for key in all_keys():
        name = key.name.replace("SCENARIO", scenario)
        known.setdefault(key.parts[-1], name)
        known[name] = name
    close = difflib.get_close_matches(keys[-1], known, n=1, cutoff=SIMILAR)
    close = close or difflib.get_close_matches(".".join(keys), known, n=1, cutoff=SIMILAR)
    return f" (did you mean '{known[close[0]]}'?)" if close else ""


def _of_struct(struct: type, prefix: str) -> Iterator[Key]:
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    meanings = comments.of_fields(struct)
    if struct is PerScenario:  # all scenarios have the same keys
        yield from _of_type(f"{prefix}SCENARIO", info.fields[0].type, "null", "")
        return
    if struct is Presets:
        yield Key(
            name=f"{prefix}PRESET.SCENARIO.KEY",
            type="as scenarios.SCENARIO.KEY",
            default="null",
            meaning="overrides a scenario's key; a --set of the scenario's key overrides both",
        )
        return
    for field in info.fields:
        name = f"{prefix}{field.encode_name}"
        yield from _of_type(name, field.type, _default(field), meanings.get(field.name, ""))


def _of_type(name: str, kind: types.Type, default: str, meaning: str) -> Iterator[Key]:
    """The key of a value, and the keys in it."""
    inner = _only(kind)
    key = Key(name=name, type=_text(kind), default=default, meaning=meaning)
    if isinstance(inner, types.StructType):
        yield msgspec.structs.replace(key, group=True)
        yield from _of_struct(inner.cls, f"{name}.")
    elif isinstance(inner, types.DictType):
        yield msgspec.structs.replace(key, group=True)
        any_name = _only(inner.key_type)
        if isinstance(any_name, types.EnumType):
            part = any_name.cls.__name__.upper()
        else:
            part = _STAND_INS.get(name.rpartition(".")[2], "NAME")
        yield from _of_type(f"{name}.{part}", inner.value_type, "", meaning)
    else:
        yield key


def _only(kind: types.Type) -> types.Type:
    """A type without its alternative null."""
    if isinstance(kind, types.Metadata):
        return _only(kind.type)
    if isinstance(kind, types.UnionType):
        others = [each for each in kind.types if not isinstance(each, types.NoneType)]
        if len(others) == 1:
            return _only(others[0])
    return kind


def _default(field: types.Field) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return msgspec.json.encode(value).decode()


def _text(kind: types.Type) -> str:
    """A type in a few words: ``integer > 0``, ``cpu | cuda``, ``list of strings``."""
    match kind:
        case types.Metadata():
            return _text(kind.type)
        case types.UnionType():
            return " | ".join(_text(each) for each in kind.types)
        case types.NoneType():
            return "null"
        case types.EnumType():
            assert issubclass(kind.cls, enum.Enum)
            return " | ".join(str(each.value) for each in kind.cls)
        case types.LiteralType():
            return " | ".join(str(each) or '""' for each in kind.values)
        case types.BoolType():
            return "true | false"
        case types.IntType() | types.FloatType():
            name = "integer" if isinstance(kind, types.IntType) else "number"
            bounds = [
                f" {sign} {bound:g}"
                for sign, bound in ((">", kind.gt), (">=", kind.ge))
                if bound is not None
            ]
            return name + "".join(bounds)
        case types.StrType():
            return f"string {kind.pattern}" if kind.pattern else "string"
        case types.VarTupleType() | types.ListType():
            item = kind.item_type
            if isinstance(item, types.StructType):
                return f"list of {{{', '.join(f.encode_name for f in item.fields)}}}"
            return f"list of {_text(item)}"
        case _:
            return "mapping"
