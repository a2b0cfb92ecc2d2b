"""A YAML document: read, changed by ``--set``, and checked with every mistake at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import msgspec
import yaml

from sut.errors import InputError
from sut.values import Struct

Document = dict[str, Any]

_KEYS = re.compile(r'"([^"]*)"|([^."]+)')
_PATH = re.compile(r'("[^"]+"|[^."]+)([.]("[^"]+"|[^."]+))*')
_T = TypeVar("_T", bound=Struct)


def read(path: Path) -> Document:
    """The YAML mapping in a file. Raises InputError."""
    try:
        document = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds no keys")
    return document


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, where a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag != "tag:yaml.org,2002:str" and key_node.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value} is no word: quote it", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key_node.value}' stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def apply(change: str, benchmark: Document, site: Document) -> None:
    """Carry out one ``--set key=value`` on the documents. The value is read as YAML."""
    path, equals, text = change.partition("=")
    keys = [quoted or plain for quoted, plain in _KEYS.findall(path.strip())]
    if not equals or not keys or not _PATH.fullmatch(path.strip()):
        raise InputError(
            f"--set {change}: give key=value, e.g. engine.max_num_seqs=16; a key with a dot in it "
            'in quotes: site.models."a.b"=/path'
        )
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise InputError(f"--set {change}: the value is not YAML") from None
    document = benchmark
    if keys[0] == "site" and len(keys) > 1:
        document, keys = site, keys[1:]
    if keys[0] == "scenarios" and len(keys) == 3:
        # Said on the command line, so it holds whatever the preset says.
        presets = benchmark.get("presets")
        for preset in presets.values() if isinstance(presets, dict) else ():
            if isinstance(preset, dict) and isinstance(preset.get(keys[1]), dict):
                preset[keys[1]].pop(keys[2], None)
    for key in keys[:-1]:
        document = document.setdefault(key, {})
        if not isinstance(document, dict):
            raise InputError(f"--set {change}: {key} is a value and has no keys")
    document[keys[-1]] = value


def check(document: Document, kind: type[Struct], file: Path) -> list[str]:
    """Every mistake in a document, one line each: file, line, key, what is wrong."""
    validator = jsonschema.Draft202012Validator(msgspec.json.schema(kind))
    root = yaml.compose(file.read_text(), yaml.SafeLoader) if file.is_file() else None
    mistakes = []
    for error in validator.iter_errors(document):
        for path, text in _explain(error):
            key = ".".join(map(str, path))
            mistakes.append(f"{file}:{_line(root, path)}: {key + ': ' if key else ''}{text}")
    return sorted(mistakes)


def _explain(error: jsonschema.ValidationError) -> Iterator[tuple[list[str | int], str]]:
    """What a schema error means to who wrote the file."""
    path = list(error.absolute_path)
    value: Any = error.validator_value  # what the schema says
    schema: Any = error.schema
    if error.validator == "anyOf" and error.context:
        # "this or nothing": say what is wrong with this.
        branches = [e for e in error.context if e.validator_value != "null"]
        for inner in branches:
            yield from _explain(inner)
    elif error.validator == "additionalProperties":
        known = schema.get("properties", {})
        instance: Any = error.instance
        for key in sorted(set(instance) - set(known)):
            yield [*path, key], f"unknown key{nearest(key, known)}"
    elif error.validator == "required":
        instance = error.instance
        missing = [key for key in value if key not in instance]
        yield path, f"misses {', '.join(missing)}"
    elif error.validator == "enum":
        near = nearest(str(error.instance), value)
        yield path, f"'{error.instance}' is not one of {', '.join(map(str, value))}{near}"
    elif error.validator == "pattern":
        yield path, f"'{error.instance}' does not fit {value}"
    elif error.validator == "type":
        yield path, f"{error.instance!r} is not of type {value}"
    else:
        yield path, error.message


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` where something known is near, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _line(root: yaml.Node | None, path: Sequence[str | int]) -> int:
    """The line of the deepest part of ``path`` that stands in the file."""
    line, node = 1, root
    for key in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value}
            if key not in pairs:
                break
            key_node, node = pairs[key]
            line = key_node.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def convert(document: Document, kind: type[_T]) -> _T:
    """The value that a checked document holds. Raises InputError."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:  # what the schema can't say
        raise InputError(f"{document.get('name', kind.__name__)}: {error}") from None
