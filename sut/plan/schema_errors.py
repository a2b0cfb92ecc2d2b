"""The errors of a JSON Schema in words for someone who wrote YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema

from sut.errors import nearest

UNKNOWN = "unknown key"  # begins the problem of one
_BOUNDS = {"exclusiveMinimum": "greater than", "minimum": "at least", "maximum": "at most"}
_ELSEWHERE = {"slurm": " (options of sbatch without a key: slurm.sbatch)"}  # by the keys around
MISSING = "missing required keys"
_SYNONYMS = {"gpu": "cuda", "nvidia": "cuda"}  # of values, for suggestions
_YAML_TYPES = {"object": "mapping", "array": "list"}  # by JSON Schema's name


def explain(error: jsonschema.ValidationError) -> Iterator[tuple[list[str | int], str]]:
    """The keys and the problem of each error behind a schema error."""
    path = list(error.absolute_path)
    value: Any = error.validator_value  # from the schema
    schema: Any = error.schema
    instance: Any = error.instance
    match error.validator:
        case "anyOf" if error.context:
            yield from _explain_choice(path, instance, error.context)
        case "additionalProperties":
            known = schema.get("properties", {})
            for key in sorted(set(instance) - set(known)):
                elsewhere = _ELSEWHERE.get(str(path[-1]) if path else "", "")
                yield [*path, key], f"{UNKNOWN}{nearest(key, known) or elsewhere}"
        case "required":
            missing = [key for key in value if key not in instance]
            yield path, f"{MISSING}: {', '.join(missing)}"
        case "enum":
            known = [str(each) for each in value]
            near = nearest(_SYNONYMS.get(str(instance).lower(), str(instance)), known)
            yield path, f"'{instance}' is not one of {', '.join(known)}{near}"
        case "pattern":
            yield path, f"'{instance}' does not match {value}"
        case "type":
            yield path, f"{_shown(instance)} is not of type {_YAML_TYPES.get(str(value), value)}"
        case "exclusiveMinimum" | "minimum" | "maximum":
            yield path, f"{instance} is not {_BOUNDS[str(error.validator)]} {value}"
        case _:
            yield path, error.message


def _explain_choice(
    path: list[str | int], instance: Any, errors: Sequence[jsonschema.ValidationError]
) -> Iterator[tuple[list[str | int], str]]:
    """What is wrong with a value that may have one of several forms; null is never explained."""
    forms = [error for error in errors if error.validator_value != "null"]
    other = [error for error in forms if error.validator in ("type", "enum")]
    if len(other) < len(forms) or len(forms) == 1:  # the value has one of the forms, or need have
        for error in forms:
            if len(forms) == 1 or error not in other:
                yield from explain(error)
    else:
        yield path, f"{_shown(instance)} is neither {' nor '.join(map(_form, forms))}"


def _shown(value: Any) -> str:
    """A value as in YAML."""
    if isinstance(value, str | dict | list):
        return repr(value)
    return "an empty value" if value is None else str(value).lower()


def _form(error: jsonschema.ValidationError) -> str:
    value: Any = error.validator_value  # from the schema
    if error.validator == "enum":
        return " nor ".join(map(str, value))
    return f"of type {_YAML_TYPES.get(str(value), value)}"
