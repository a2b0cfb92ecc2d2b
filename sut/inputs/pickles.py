"""Tables in pickles, as pandas writes them, read without running anything a pickle names.

A pickle names functions to call. Here each name stands for an inert class of this module, and a
name that is not listed is refused; neither pandas nor numpy is imported. The layouts are those of
``DataFrame.to_pickle`` of pandas 1.3 to 3, also with columns of Arrow, and of lists and dicts of
plain values.
"""

from __future__ import annotations

import io
import pickle
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from sut.errors import InputError
from sut.inputs import pickled_arrow
from sut.inputs.inert import Column, Inert, UnknownError, Word
from sut.units import quantity

# numpy's kinds and sizes of numbers, as codes of the module array.
_NUMBERS = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_NUMBERS |= {"f4": "f", "f8": "d"}
_HINT = "write it again with pandas, its texts as objects: frame.astype(object).to_pickle(...)"
_REFUSED = (
    "it may run any program: do not unpickle it. Tables of pandas 1.3 to 3 with texts, numbers and "
    "lists are read, as to_pickle(protocol=5) writes them"
)

Table = dict[str, Sequence[object]]  # by column


def read_table(data: bytes, where: object) -> Table:
    """The columns of a pickled DataFrame, dict of columns or list of dicts, by name, in the order
    of the rows. Values are str, int, float, bool, None and lists of them.

    Raises InputError, also for a pickle that names anything else than such a table needs. ``where``
    is the file's name in messages.
    """
    try:
        found = _Unpickler(io.BytesIO(data)).load()
        table = _table(found)
    except _NotAllowedError as error:
        raise InputError(f"{where}: refused: the pickle names {error}", hint=_REFUSED) from None
    except UnknownError as error:
        raise InputError(f"{where}: {error}", hint=_HINT) from None
    except Exception as error:  # pickle raises any, for a damaged file
        what, hint = f"{type(error).__name__}: {error}", "download the file again"
        if not data.startswith(pickle.PROTO):
            what = "it does not begin as a pickle does"
            hint = "give the file that you downloaded; where to get it: docs/benchmarks.md"
        raise InputError(f"{where}: not a pickled table, or damaged: {what}", hint=hint) from None
    lengths = {len(column) for column in table.values()}
    if len(lengths) > 1:
        raise InputError(f"{where}: the columns differ in length: {sorted(lengths)}", hint=_HINT)
    return table


class _NotAllowedError(Exception):
    """A name that no table needs."""


class _Dtype(Inert):
    """numpy.dtype(name, align, copy), with the byte order in its state."""

    def code(self) -> str:
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "|"
        name = self.args[0]
        if not isinstance(name, str) or order == ">":
            raise UnknownError(f"an array of type {order}{name}, which is not read")
        return name


class _Array(Column):
    """numpy.ndarray: an empty one that gets its state."""

    def values(self) -> list[Any]:
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise UnknownError("an array without its content")
        _, shape, dtype, by_column, content = self.state
        return _values(content, dtype, shape, "F" if by_column else "C")


class _Buffer(Column):
    """numpy's _frombuffer(content, dtype, shape, order), of protocol 5."""

    def values(self) -> list[Any]:
        content, dtype, shape, order = self.args
        return _values(content, dtype, shape, order)


class _Scalar(Inert):
    """numpy's scalar(dtype, content)."""

    def value(self) -> Any:
        dtype, content = self.args
        return _values(content, dtype, (), "C")[0]


class _Index(Column):
    """pandas' _new_Index(class, {"data": ...} or {"start": ...})."""

    def values(self) -> list[Any]:
        data = self.args[1].get("data")
        return [] if data is None else _list(data)


class _Frame(Inert):
    """pandas.DataFrame; its manager is in its state."""


class _Manager(Inert):
    """pandas' BlockManager(blocks, axes)."""


class _Block(Inert):
    """pandas' _unpickle_block(values, places of its columns, ndim)."""


class _StringArray(Column):
    """pandas' array of texts; the last array of its state has them."""

    def values(self) -> list[Any]:
        parts = [self.state, *self.args]
        while parts:
            part = parts.pop(0)
            if isinstance(part, _Array | _Buffer):
                return part.values()
            if isinstance(part, dict):
                parts.extend(part.values())
            elif isinstance(part, tuple | list):
                parts.extend(part)
        raise UnknownError("texts that are not in an array of objects")


class _Missing(Inert):
    """pandas.NA, itself and not a call."""


_NUMPY: dict[str, dict[str, type]] = {
    "multiarray": {"_reconstruct": _Array, "scalar": _Scalar},
    "numeric": {"_frombuffer": _Buffer},
}  # in numpy.core, and from numpy 2 in numpy._core
_ALLOWED: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("builtins", "slice"): slice,
    **pickled_arrow.ALLOWED,
    ("numpy", "ndarray"): Word,
    ("numpy", "dtype"): _Dtype,
    **{
        (f"numpy.{core}.{module}", name): kind
        for core in ("core", "_core")
        for module, names in _NUMPY.items()
        for name, kind in names.items()
    },
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas", "DataFrame"): _Frame,
    ("pandas.core.internals.managers", "BlockManager"): _Manager,
    ("pandas._libs.internals", "_unpickle_block"): _Block,
    ("pandas.core.indexes.base", "_new_Index"): _Index,
    ("pandas", "NA"): _Missing,
    ("pandas", "Index"): Word,
    ("pandas", "RangeIndex"): Word,
    ("pandas", "StringDtype"): Word,
    ("pandas.core.indexes.base", "Index"): Word,
    ("pandas.core.indexes.range", "RangeIndex"): Word,
    ("pandas.core.indexes.numeric", "Int64Index"): Word,
    ("pandas.core.arrays.string_", "StringDtype"): Word,
    ("pandas.core.arrays.string_", "StringArray"): _StringArray,
    ("pandas.arrays", "StringArray"): _StringArray,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): _StringArray,
}


class _Unpickler(pickle._Unpickler):
    """Names are looked up in ``_ALLOWED`` alone. In Python, because the one in C allocates what
    a damaged file asks for; 24,576 samples take seconds."""

    dispatch = {
        **pickle._Unpickler.dispatch,
        # Read first, then allocated.
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _NotAllowedError(f"{module}.{name}") from None


def _table(found: Any) -> Table:
    match found:
        case _Frame():
            columns = _of_frame(found)
        case dict():
            columns = {key: _list(column) for key, column in found.items()}
        case [dict(), *_]:
            if any(not isinstance(row, dict) or row.keys() != found[0].keys() for row in found):
                raise UnknownError("the rows differ in their keys")
            columns = {key: [row[key] for row in found] for key in found[0]}
        case _:
            raise UnknownError("no table: expected a DataFrame, a dict or a list of dicts")
    if any(not isinstance(name, str) for name in columns):
        raise UnknownError("the columns have no names")
    return {name: [_plain(value) for value in column] for name, column in columns.items()}


def _of_frame(frame: _Frame) -> Table:
    state = frame.state
    manager = state.get("_mgr", state.get("_data")) if isinstance(state, dict) else None
    if not isinstance(manager, _Manager) or len(manager.args) != 2:
        raise UnknownError("a DataFrame of a pandas version that is not read")
    blocks, (names, _) = manager.args
    columns = names.values()
    if len(set(columns)) != len(columns):
        raise UnknownError("two columns have the same name")
    table: Table = dict.fromkeys(columns, ())
    for block in blocks:
        values, places = block.args[:2]
        places = _places(places, len(columns))
        parts = _list(values)
        if len(places) == 1 and (not parts or not isinstance(values, _Array | _Buffer)):
            parts = [parts]  # an array of texts has one dimension
        for place, column in zip(places, parts, strict=True):
            table[columns[place]] = _list(column)
    return table


def _places(given: object, most: int) -> list[int]:
    """The places of a block's columns."""
    if isinstance(given, slice):
        return list(range(*given.indices(most)))
    return [int(place) for place in _list(given)]


def _list(value: object) -> list[Any]:
    if isinstance(value, Column):
        return value.values()
    if isinstance(value, list | tuple):
        return list(value)
    raise UnknownError(f"a column of type {type(value).__name__}, which is not read")


def _plain(value: Any) -> object:
    """A value without numpy's types."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case _Scalar():
            return value.value()
        case type() if value is _Missing:
            return None
        case Column() | list() | tuple():
            return [_plain(each) for each in _list(value)]
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case _:
            raise UnknownError(f"a value of type {type(value).__name__}, which is not read")


def _values(content: Any, dtype: Any, shape: Any, order: str) -> list[Any]:
    """An array as nested lists; a scalar, of shape ``()``, as a list of one."""
    code = dtype.code() if isinstance(dtype, _Dtype) else ""
    size = 1
    for length in shape:
        size *= length
    if isinstance(content, list):
        flat: Sequence[Any] = content
    elif code == "b1":
        flat = [byte != 0 for byte in bytes(content)]
    elif code in _NUMBERS:
        flat = array(_NUMBERS[code], bytes(content)).tolist()
    else:
        raise UnknownError(f"an array of type {code}, which is not read")
    if len(flat) != size:
        raise UnknownError(f"an array of {quantity(len(flat), 'values')} with the shape {shape}")
    return _nested(flat, tuple(shape) or (1,), order == "F")


def _nested(flat: Sequence[Any], shape: tuple[int, ...], by_column: bool) -> list[Any]:
    """``flat`` with this shape; ``by_column`` if its first index runs fastest."""
    if len(shape) == 1:
        return list(flat)
    if len(shape) > 2:
        raise UnknownError(f"an array of {len(shape)} dimensions")
    rows, columns = shape
    if by_column:
        return [list(flat[row::rows]) for row in range(rows)]
    return [list(flat[row * columns : (row + 1) * columns]) for row in range(rows)]
