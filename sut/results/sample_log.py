"""Every completed sample of a phase, in ``RUN_DIR/loadgen/<phase>/samples.csv``.

One row a sample, in the order of completion. Times are milliseconds from the phase's start
(the zero of ``elapsed_s`` in ``progress.jsonl``), by the dispatcher's clock:

- ``issued_ms``: LoadGen handed the sample over;
- ``admitted_ms``: a replica took it;
- ``first_token_ms`` and ``completed_ms``: its first and its last token came.

A sample that failed, or was not done when the phase ended, has no row.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.rundir import write_atomic

HEADER = (
    "sample_index,replica,prompt_tokens,output_tokens,"
    "issued_ms,admitted_ms,first_token_ms,completed_ms"
)


class SampleLog(msgspec.Struct, frozen=True, kw_only=True):
    """The columns, of one length. Integers are ``array('q')``, times ``array('d')``."""

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


def write(path: Path, samples: Mapping[str, Sequence[int]]) -> None:
    """Write what :meth:`sut._core.Dispatcher.samples` gave, whole or not at all. Raises OSError."""
    rows = zip(*(samples[name] for name in _COLUMNS), strict=True)
    lines = [
        f"{index},{replica},{prompt},{output},"
        f"{issued / 1e6:.3f},{admitted / 1e6:.3f},{first / 1e6:.3f},{completed / 1e6:.3f}\n"
        for index, replica, prompt, output, issued, admitted, first, completed in rows
    ]
    write_atomic(path, "".join([HEADER + "\n", *lines]))


_COLUMNS = (
    "sample_index",
    "replica",
    "prompt_tokens",
    "output_tokens",
    "issued_ns",
    "admitted_ns",
    "first_token_ns",
    "completed_ns",
)


def read(path: Path) -> SampleLog | None:
    """The file's columns, or None where there is no file. Raises InputError for another file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from None
    head, _, body = text.partition("\n")
    if head != HEADER:
        raise InputError(f"{path}: not a file of samples: its first line is not {HEADER}")
    integers = [array("q") for _ in range(4)]
    times = [array("d") for _ in range(4)]
    for number, line in enumerate(body.splitlines(), start=2):
        try:
            *counts, issued, admitted, first, completed = line.split(",")
            for column, value in zip(integers, counts, strict=True):
                column.append(int(value))
            for moments, value in zip(times, (issued, admitted, first, completed), strict=True):
                moments.append(float(value))
        except ValueError:
            raise InputError(f"{path}:{number}: damaged: {line!r}") from None
    return SampleLog(
        sample_index=integers[0],
        replica=integers[1],
        prompt_tokens=integers[2],
        output_tokens=integers[3],
        issued_ms=times[0],
        admitted_ms=times[1],
        first_token_ms=times[2],
        completed_ms=times[3],
    )
