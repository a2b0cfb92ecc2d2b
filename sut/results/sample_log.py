"""Every completed sample of a phase, in ``RUN_DIR/loadgen/<phase>/samples.csv``.

One row a sample, in the order of completion. Times are milliseconds from the phase's start
(the zero of ``elapsed_s`` in ``progress.jsonl``), by the dispatcher's clock:

- ``issued_ms``: LoadGen issued the sample;
- ``admitted_ms``: a replica accepted it;
- ``first_token_ms`` and ``completed_ms``: its first and its last token arrived.

A sample that failed, or was incomplete when the phase ended, has no row.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sut.errors import InputError
from sut.rundir import write_atomic


class SampleLog(msgspec.Struct, frozen=True, kw_only=True):
    """The columns, of equal length. Integers are ``array('q')``, times ``array('d')``."""

    sample_index: array[int]
    replica: array[int]
    prompt_tokens: array[int]
    output_tokens: array[int]
    issued_ms: array[float]
    admitted_ms: array[float]
    first_token_ms: array[float]
    completed_ms: array[float]

    def __len__(self) -> int:
        return len(self.completed_ms)

    def span_s(self) -> float | None:
        """From the first sample issued to the last one completed; None without a sample."""
        return (self.completed_ms[-1] - min(self.issued_ms)) / 1e3 if len(self) else None

    def ttft_ms(self, row: int) -> float:
        return self.first_token_ms[row] - self.issued_ms[row]

    def tpot_ms(self, row: int) -> float | None:
        """Time per output token after the first; None for an answer of one token."""
        decoded = self.output_tokens[row] - 1
        return (self.completed_ms[row] - self.first_token_ms[row]) / decoded if decoded else None


HEADER = ",".join(SampleLog.__struct_fields__)
_IN_NS = [name.replace("_ms", "_ns") for name in SampleLog.__struct_fields__]


def write(path: Path, samples: Mapping[str, Sequence[int]]) -> None:
    """Write what :meth:`sut._core.Dispatcher.samples` returned, atomically. Raises OSError, also
    if the folder was removed: it is not created again."""
    path.parent.stat()
    rows = zip(*(samples[name] for name in _IN_NS), strict=True)
    lines = [
        f"{index},{replica},{prompt},{output},"
        f"{issued / 1e6:.3f},{admitted / 1e6:.3f},{first / 1e6:.3f},{completed / 1e6:.3f}\n"
        for index, replica, prompt, output, issued, admitted, first, completed in rows
    ]
    write_atomic(path, "".join([HEADER + "\n", *lines]))


def read(path: Path) -> SampleLog | None:
    """The file's columns, or None where there is no file. Raises InputError for a damaged file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    head, _, body = text.partition("\n")
    if head != HEADER:
        raise InputError(f"{path}: not a file of samples: the first line is not {HEADER}")
    columns: list[array[Any]] = [array(code) for code in "qqqqdddd"]
    for number, line in enumerate(body.splitlines(), start=2):
        try:
            for column, value in zip(columns, line.split(","), strict=True):
                column.append(int(value) if column.typecode == "q" else float(value))
        except (ValueError, OverflowError):
            raise InputError(f"{path}:{number}: damaged: {line!r}") from None
    return SampleLog(**dict(zip(SampleLog.__struct_fields__, columns, strict=True)))
