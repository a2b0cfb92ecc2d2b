"""Arrow's arrays of texts, numbers and lists in a pickle of pandas, read without pyarrow.

The buffers are those of https://arrow.apache.org/docs/format/Columnar.html: a bitmap of the values
that are not null, then numbers or offsets, then the bytes of texts.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import Any

from sut.inputs.inert import Column, Inert, UnknownError, Word

_NUMBERS = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "float": "f", "double": "d"}
_NUMBERS |= {"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"}
_OFFSETS = {"string": "i", "large_string": "q", "list": "i", "large_list": "q"}


class _Type(Inert):
    """pyarrow's type_for_alias(name)."""

    def __init__(self, name: str, *more: object) -> None:
        super().__init__(name, *more)
        self.name = name


class _List(_Type):
    """pyarrow's list_(field)."""

    def __init__(self, *args: object) -> None:
        super().__init__("list", *args)


class _LargeList(_List):
    """pyarrow's large_list(field)."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.name = "large_list"


class _Buffer(Inert):
    """pyarrow's py_buffer(content)."""

    def content(self) -> bytes:
        return bytes(memoryview(self.args[0]))


class _Array(Column):
    """pyarrow's _restore_array((type, length, nulls, start, buffers, children, dictionary))."""

    def values(self) -> list[Any]:
        return _values(*self.args[0])


class _Chunks(Column):
    """pyarrow's chunked_array(arrays, type)."""

    def values(self) -> list[Any]:
        arrays, _ = self.args
        return [value for each in arrays for value in _values(*each.args[0])]


class _OfPandas(Column):
    """pandas' ArrowStringArray or ArrowExtensionArray; its array is in its state."""

    def values(self) -> list[Any]:
        found: list[Any] = self.state["_pa_array"].values()
        return found


ALLOWED: dict[tuple[str, str], type] = {
    ("pyarrow.lib", "type_for_alias"): _Type,
    ("pyarrow.lib", "list_"): _List,
    ("pyarrow.lib", "large_list"): _LargeList,
    ("pyarrow.lib", "field"): Word,
    ("pyarrow.lib", "py_buffer"): _Buffer,
    ("pyarrow.lib", "_restore_array"): _Array,
    ("pyarrow.lib", "chunked_array"): _Chunks,
    ("pandas", "ArrowDtype"): Word,
    ("pandas.arrays", "ArrowStringArray"): _OfPandas,
    ("pandas.arrays", "ArrowExtensionArray"): _OfPandas,
    # of pandas 2
    ("pandas.core.dtypes.dtypes", "ArrowDtype"): Word,
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"): _OfPandas,
    ("pandas.core.arrays.arrow.array", "ArrowExtensionArray"): _OfPandas,
}


def _values(
    kind: _Type,
    length: int,
    nulls: int,
    start: int,
    buffers: list[_Buffer | None],
    children: list[Any],
    dictionary: object,
) -> list[Any]:
    """``start`` is the position of the first value in the buffers."""
    if start < 0 or length < 0:
        raise UnknownError("an Arrow array of a negative length")
    name, (known, *contents) = kind.name, [each.content() if each else None for each in buffers]
    if name == "bool":
        found: list[Any] = _bits(contents[0], start, length)
    elif name in _NUMBERS:
        found = _numbers(contents[0], _NUMBERS[name], start, length)
    elif name in _OFFSETS:
        is_text = not isinstance(kind, _List)
        whole = (contents[1] or b"") if is_text else _values(*children[0])
        found = _slices(whole, _numbers(contents[0], _OFFSETS[name], start, length + 1))
        found = [text.decode() for text in found] if is_text else found
    else:
        raise UnknownError(f"an Arrow array of type {name}, which is not read")
    if known is None:
        return found
    is_known = _bits(known, start, length)
    return [value if there else None for value, there in zip(found, is_known, strict=True)]


def _slices(whole: bytes | list[Any], offsets: list[int]) -> list[Any]:
    """Each part once: offsets that go back would make more of them than there is."""
    if offsets[0] < 0 or offsets[-1] > len(whole) or any(a > b for a, b in pairwise(offsets)):
        raise UnknownError("an Arrow array with damaged offsets")
    return [whole[a:b] for a, b in pairwise(offsets)]


def _numbers(content: bytes | None, code: str, start: int, length: int) -> list[Any]:
    width = array(code).itemsize
    return array(code, _part(content, start * width, length * width)).tolist()


def _bits(content: bytes | None, start: int, length: int) -> list[bool]:
    known = _part(content, 0, (start + length + 7) // 8)
    return [bool(known[i // 8] >> i % 8 & 1) for i in range(start, start + length)]


def _part(content: bytes | None, start: int, length: int) -> bytes:
    if content is None or len(content) < start + length:
        raise UnknownError("an Arrow array with a truncated buffer")
    return content[start : start + length]
