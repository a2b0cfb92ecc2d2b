"""A YAML document: read, changed by ``--set``, checked against the schema of its struct."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence, Set
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import msgspec
import yaml

from sut.errors import Errors, InputError
from sut.plan import schema_errors
from sut.values import Struct

Document = dict[str, Any]

MAX_CHARS = 2**20  # of a document
MAX_VALUES = 100_000  # in it
MAX_DEPTH = 50
MAX_NUMBER_CHARS = 100
MAX_LINE_CHARS = 1_000  # that are searched for a hint

# A number in YAML 1.2, which is text in 1.1.
_POWER = re.compile(r"[1-9][0-9]*([.][0-9]+)?[eE][-+]?[0-9]{1,3}$")
_KEYS = re.compile(r'"([^"]*)"|([^."]+)')
_HOSTLIST = re.compile(r"\{.*\bname: *([\w.-]+\[[\d,-]+\][\w.-]*)")
_PATH = re.compile(r'("[^"]+"|[^."]+)([.]("[^"]+"|[^."]+))*')
_TAG = "tag:yaml.org,2002:"
_KINDS = {"str", "int", "float", "bool", "null", "map", "seq"}
_EXAMPLE = "configs/benchmarks/replay.yaml"
_EXAMPLES = {
    "Benchmark": _EXAMPLE,
    "Site": "configs/sites/template.yaml",
    "Campaign": "configs/campaigns/jw-validation.yaml",
}
_KEYS_OF = {
    "Site": "its keys: python -m sut.list keys site",
    "Campaign": "its keys: configs/schema/campaign.json",
}
# For JSON Schema 16.0 is an integer; for msgspec it is not.
_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
_TOO_DEEP = "nested too deeply"
_T = TypeVar("_T", bound=Struct)


def read(path: Path, kind: type[Struct] | None = None) -> Document:
    """The YAML mapping in a file; an error's example is a file of ``kind``. Raises InputError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARS + 1)
        document = _parse(text)
    except OSError as error:
        hint = f"give a file that you can read: ls -l {shlex.quote(str(path.parent))}"
        raise InputError(f"cannot read {path}: {error.strerror}", hint=hint) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(
            f"{path}:{line}: invalid YAML: {error.problem}", hint=_correction(path, text, line)
        ) from None
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: not a text in UTF-8",
            hint=f"give a YAML file, or convert the text: iconv -t utf-8 {shlex.quote(str(path))}",
        ) from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{path}: invalid YAML: {problem}", hint=_again(path)) from None
    if not isinstance(document, dict):
        example = _EXAMPLES.get(kind.__name__, _EXAMPLE) if kind else _EXAMPLE
        hint = f"write one key a line, as in {example}"
        raise InputError(f"{path}: expected a YAML mapping", hint=hint)
    return document


def _correction(path: Path, text: str, line: int) -> str:
    """What to change in a line, as far as it is known, and the next command."""
    shown = (text.split("\n")[line - 1 : line] or [""])[0][:MAX_LINE_CHARS]
    if found := _HOSTLIST.search(shown):  # YAML takes it for a list
        return f"quote the hostlist: '{found[1]}'"
    if re.match(" *\t", shown):
        return f"indent with spaces, not tabs; then: {_again(path)}"
    return f"correct line {line} or the one before it, then: {_again(path)}"


def _again(path: Path) -> str:
    return f"python -m sut.validate {shlex.quote(str(path))}"


def _parse(text: str) -> Any:
    """Raises yaml.YAMLError."""
    if len(text) > MAX_CHARS:
        raise yaml.YAMLError(f"longer than {MAX_CHARS:,} characters")
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError(_TOO_DEEP) from None
    except (ValueError, OverflowError) as error:  # e.g. an escape that is no character
        raise yaml.YAMLError(str(error)) from None


class _Loader(yaml.SafeLoader):
    """YAML with JSON's kinds of values and of a bounded size; keys must be unique strings."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {}, 1)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind not in _KINDS:
            raise _invalid(node, "a value of a kind that is not supported; quote it")
        try:
            if isinstance(node.value, str):
                node.value.encode()  # an escape can give half of a surrogate pair
                if kind != "str" and len(node.value) > MAX_NUMBER_CHARS:
                    raise ValueError
            value = super().construct_object(node, deep)
            if kind == "float" and _POWER.fullmatch(node.value) and value < 2**64:
                exact = Decimal(node.value)
                value = int(exact) if exact == exact.to_integral_value() else value
            if isinstance(value, int) and not -(2**63) <= value < 2**64:
                raise ValueError
        except (ValueError, KeyError, OverflowError):
            raise _invalid(node, f"not a valid {kind}") from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            is_text = isinstance(key, yaml.ScalarNode) and key.tag == f"{_TAG}str"
            if not is_text and key.value != "<<":
                raise _invalid(key, f"key {key.value} is not a string; quote it")
            if key.value in seen:
                raise _invalid(key, f"duplicate key '{key.value}'")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(f"{_TAG}float", _POWER, list("123456789"))


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """The number of values in a node and its height, with all that its aliases stand for."""
    count = height = 0
    if id(node) in known:
        count, height = known[id(node)]
    if depth + height > MAX_DEPTH:  # also an alias of what it is in
        raise _invalid(node, _TOO_DEEP)
    if not count:
        count = 1
        pairs = isinstance(node, yaml.MappingNode)
        for child in itertools.chain(*node.value) if pairs else _items(node):
            below, under = _measure(child, known, depth + 1)
            count, height = count + below, max(height, under + 1)
            if count > MAX_VALUES:
                raise _invalid(child, f"more than {MAX_VALUES:,} values")
        known[id(node)] = count, height
    return count, height


def _items(node: yaml.Node) -> list[yaml.Node]:
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _invalid(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def apply(change: str, benchmark: Document, site: Document) -> None:
    """Apply one ``--set key=value`` to the documents. The value is YAML. Raises InputError."""
    path, equals, text = change.partition("=")
    keys = keys_of(change)
    if not equals or not _PATH.fullmatch(path.strip()):
        raise InputError(
            f"--set {change}: expected key=value",
            hint="--set engine.max_num_seqs=16; quote a key that contains a dot: "
            """--set 'site.models."a.b"=/path'""",
        )
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise InputError(f"--set {change}: the value is invalid YAML: {problem}") from None
    document = benchmark
    if keys[0] == "site" and len(keys) > 1:
        document, keys = site, keys[1:]
    if keys[0] == "scenarios" and len(keys) == 3:
        # The command line has precedence over the preset.
        presets = benchmark.get("presets")
        for preset in presets.values() if isinstance(presets, dict) else ():
            if isinstance(preset, dict) and isinstance(preset.get(keys[1]), dict):
                preset[keys[1]].pop(keys[2], None)
    for key in keys[:-1]:
        document = document.setdefault(key, {})
        if not isinstance(document, dict):
            raise InputError(f"--set {change}: {key} is a value and has no keys")
    document[keys[-1]] = value


def keys_of(change: str) -> list[str]:
    """The keys of a ``--set key=value``, outermost first."""
    path = change.partition("=")[0].strip()
    return [quoted or plain for quoted, plain in _KEYS.findall(path)]


def check(
    document: Document, kind: type[Struct], file: Path, changes: Sequence[str] = (), root: str = ""
) -> Errors:
    """Every error in a document that was read from ``file`` and changed by ``changes``, each with
    its location: the file and line, or the ``--set`` option that set the key.

    ``root`` is the first key of those ``changes`` that apply to this document.
    """
    schema = msgspec.json.schema(kind)
    validator = _Validator(schema)
    known = {key for each in schema["$defs"].values() for key in each.get("properties", {})}
    tree = yaml.compose(file.read_text(), yaml.SafeLoader) if file.is_file() else None
    errors = set()
    for error in validator.iter_errors(document):
        for path, problem in schema_errors.explain(error):
            full = [root, *path] if root else path
            line, found = _line(tree, path)
            changed = _change_of(full, changes, in_file=found)
            where = changed or f"{file}:{line}" + _key(path)
            of_key = _hint(path, problem, known)
            hint = of_key if changed else _file_hint(kind, problem) or of_key
            errors.add((line, f"{where}: {problem}", hint))
    return Errors(InputError(text, hint=hint) for _, text, hint in sorted(errors))


def _hint(path: Sequence[str | int], problem: str, known: Set[str]) -> str:
    """How to see the keys, or what the nearest one to ``path`` may be that is ``known``."""
    parts = path[:-1] if problem.startswith(schema_errors.UNKNOWN) else path
    names = [each for each in parts if each in known]
    return " ".join(["python -m sut.list keys", *map(str, names[-1:])])


def _file_hint(kind: type[Struct], problem: str) -> str:
    """An example for missing keys, else how to list the keys of a file of this kind; empty for a
    benchmark's, whose keys are listed one by one."""
    if problem.startswith(schema_errors.MISSING) and kind.__name__ in _EXAMPLES:
        return f"an example with every required key: {_EXAMPLES[kind.__name__]}"
    return _KEYS_OF.get(kind.__name__, "")


def _change_of(path: Sequence[str | int], changes: Sequence[str], *, in_file: bool) -> str:
    """The ``--set`` option that set the value at ``path``, and the key in it; empty if none did.
    An option also creates the mappings around its key that are not in the file."""
    for change in changes:
        keys = keys_of(change)
        if path[: len(keys)] == keys:
            return f"--set {change}{_key(path[len(keys) :])}"
        if not in_file and keys[: len(path)] == path:
            return f"--set {change}: {'.'.join(map(str, path))}"
    return ""


def _key(path: Sequence[str | int]) -> str:
    return f": {'.'.join(map(str, path))}" if path else ""


def _line(root: yaml.Node | None, path: Sequence[str | int]) -> tuple[int, bool]:
    """The line of the deepest part of ``path`` that is in the file, and whether all of it is."""
    line, node = 1, root
    for key in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value}
            if key not in pairs:
                return line, False
            key_node, node = pairs[key]
            line = key_node.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            return line, False
    return line, True


def convert(document: Document, kind: type[_T]) -> _T:
    """The value of a checked document. Raises InputError."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:  # what a JSON Schema cannot express
        raise InputError(f"{document.get('name', kind.__name__)}: {error}") from None
