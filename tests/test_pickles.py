"""Tables in pickles: those of pandas are read, and nothing a pickle names can run.

The files under golden/pickles were written by make.py there, with the pandas in their names.
"""

from __future__ import annotations

import collections
import contextlib
import pickle
import re
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from sut.errors import InputError
from sut.inputs import inert, pickled_arrow, pickles

GOLDEN = sorted((Path(__file__).parent / "golden" / "pickles").glob("*.pkl"))
TABLE = {
    "id": ["flan.1", "cot.3", "t0.2"],
    "output": ["One. Two.", "", "é"],
    "tok_input": [[1, 2, 29871], [4, 5, 6, 7, 29871], [3, 29871]],
    "tok_input_length": [3, 5, 2],
    "short": [False, False, True],
    "share": [0.5, 1.0, 0.25],
}


OURS = {module.__name__ for module in (inert, pickled_arrow, pickles)}


def refusal(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        pickles.read_table(data, "data.pkl")
    return str(caught.value)


class Calls:
    """Pickled as a call of any function."""

    def __init__(self, function: Any, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) == 8 and {file.name[:8] for file in GOLDEN} == {
        "pandas-1",
        "pandas-2",
        "pandas-3",
    }


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_reads_pandas_tables_without_pandas(file: Path) -> None:
    loaded = set(sys.modules)
    assert pickles.read_table(file.read_bytes(), file) == TABLE
    assert not {name for name in set(sys.modules) - loaded if name.startswith(("pandas", "numpy"))}


def arrow(kind: str, length: int, start: int, *buffers: bytes | None) -> list[object]:
    """The values of an array as pyarrow restores it."""
    made = [None if each is None else pickled_arrow._Buffer(each) for each in buffers]
    whole = (pickled_arrow._Type(kind), length, -1, start, made, [], None)
    return pickled_arrow._Array(whole).values()


OFFSETS = struct.pack("<5i", 0, 1, 3, 3, 4)


def test_reads_arrows_arrays_from_any_position() -> None:
    text = "aéd".encode()
    assert arrow("string", 4, 0, None, OFFSETS, text) == ["a", "é", "", "d"]
    assert arrow("string", 3, 1, b"\x0a", OFFSETS, text) == ["é", None, "d"]
    assert arrow("bool", 3, 7, None, b"\x80\x02") == [True, False, True]
    assert arrow("int16", 2, 1, b"\x04", struct.pack("<3h", 1, 2, -3)) == [None, -3]
    assert arrow("string", 0, 0, None, struct.pack("<i", 0), None) == []


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (("string", 5, 0, None, OFFSETS, b"abcd"), "a truncated buffer"),
        (("string", 4, 0, None, OFFSETS, b"abc"), "damaged offsets"),
        (("string", 2, 0, None, struct.pack("<3i", 0, 4, 0), b"abcd"), "damaged offsets"),
        (("string", 1, 0, None, struct.pack("<2i", -1, 1), b"abcd"), "damaged offsets"),
        (("int64", 2, 0, None, bytes(15)), "a truncated buffer"),
        (("bool", 8, 7, None, b"\xff"), "a truncated buffer"),
        (("int8", 9, 0, b"\xff", bytes(9)), "a truncated buffer"),
        (("int8", 1, -1, None, bytes(9)), "a negative length"),
        (("int8", -1, 0, None, bytes(9)), "a negative length"),
        (
            ("decimal128(5, 2)", 1, 0, None, bytes(16)),
            "of type decimal128(5, 2), which is not read",
        ),
    ],
)
def test_refuses_a_damaged_array_of_arrow(array: Any, problem: str) -> None:
    with pytest.raises(inert.UnknownError, match=re.escape(problem)):
        arrow(*array)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_reads_columns_and_rows_of_plain_values(protocol: int) -> None:
    columns = {"tok_input": [[1, 2], [3]], "output": ["a", None]}
    rows = [{"tok_input": [1, 2], "output": "a"}, {"tok_input": [3], "output": None}]
    for table in (columns, rows):
        assert pickles.read_table(pickle.dumps(table, protocol), "data.pkl") == columns


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_does_not_run(protocol: int, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    call = Calls(Path.touch, target)
    data = pickle.dumps({"tok_input": [[1]], "output": [call]}, protocol)
    assert pickle.loads(data) and target.exists()  # it is malicious
    target.unlink()
    assert "refused: the pickle names" in refusal(data)
    assert not target.exists()


@pytest.mark.parametrize(
    "function",
    [eval, exec, getattr, __import__, open, type, print, collections.OrderedDict],
    ids=lambda function: function.__name__,
)
def test_refuses_every_function(function: Any) -> None:
    text = refusal(pickle.dumps([Calls(function, "1")]))
    assert function.__name__ in text and "it may run any program" in text


def test_refuses_a_function_inside_a_real_table(tmp_path: Path) -> None:
    """The name of a known type is replaced by one of the same length."""
    data = GOLDEN[0].read_bytes()
    name = b"pandas.core.frame"
    assert name in data
    assert "refused" in refusal(data.replace(name, b"posix".ljust(len(name), b"x")))


def test_known_names_are_inert(tmp_path: Path) -> None:
    """A pickle may combine the known names in any way: nothing of pandas or numpy is called."""
    for (module, name), made in pickles._ALLOWED.items():
        assert made is slice or made.__module__ in OURS, f"{module}.{name}"
        by_name = f"c{module}\n{name}\n(I1\nI2\ntR.".encode()
        assert "data.pkl: " in refusal(by_name)


def test_a_file_that_is_no_pickle_is_named_so() -> None:
    shown = refusal(b"# A README\nwith text\n")
    assert "not a pickled table, or damaged: it does not begin as a pickle does" in shown
    assert "hint: give the file that you downloaded" in shown


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_refuses_a_damaged_table(file: Path) -> None:
    data = file.read_bytes()
    for length in range(0, len(data), 7):
        assert "not a pickled table, or damaged" in refusal(data[:length])
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 0x41
        with contextlib.suppress(InputError):  # and nothing else
            pickles.read_table(bytes(damaged), file)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ([1, 2], "no table: expected a DataFrame"),
        ([], "no table"),
        ({"a": [1], "b": [1, 2]}, "the columns differ in length: [1, 2]"),
        ({1: [1]}, "the columns have no names"),
        ([{"a": 1}, {"b": 1}], "the rows differ in their keys"),
        ({"a": 1}, "a column of type int"),
        ({"a": [{1, 2}]}, "a value of type set"),
    ],
)
def test_refuses_what_is_no_table(table: object, problem: str) -> None:
    assert problem in refusal(pickle.dumps(table))


def test_a_damaged_length_allocates_nothing() -> None:
    """Memory for a place in the memo, or for bytes, that a file of some bytes cannot need."""
    huge = (2**40).to_bytes(8, "little")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in (
        b"\x80\x05]r\x00\x00\x00\x08.",  # LONG_BINPUT 2**27
        b"\x80\x05\x96" + huge + b".",  # BYTEARRAY8
        b"\x80\x05\x8e" + huge + b".",  # BINBYTES8
    ):
        refusal(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
