"""Convert a pre-tokenized data set of MLCommons: ``python -m sut.convert FILE OUTPUT``."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.command import Parser, a_path, command
from sut.errors import EXIT_VALID, InputError, quoted
from sut.inputs import pickles, tokenized
from sut.inputs.pickles import Table
from sut.rundir import write_atomic
from sut.units import quantity

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_TOKENS = ("tok_input", "input_tokens")
_REFERENCES = ("output",)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m sut.convert",
        description="Convert a pre-tokenized data set of MLCommons, a pickle (.pkl, .pkl.gz) or "
        "Parquet, to the JSON lines that a benchmark with dataset.kind: tokenized reads. Nothing "
        "in a pickle can run: one that names more than a table is refused. Parquet needs pyarrow.",
        epilog="exit codes: 0 done, 2 bad input",
        examples=("open_orca_gpt4_tokenized_llama.sampled_24576.pkl.gz open_orca.jsonl",),
    )
    parser.add_argument("file", metavar="FILE", type=a_path)
    parser.add_argument("output", metavar="OUTPUT", type=a_path, help="replaced if it exists")
    parser.add_argument(
        "--tokens", metavar="COLUMN", help=f"of the token ids; else {' or '.join(_TOKENS)}"
    )
    parser.add_argument(
        "--references",
        metavar="COLUMN",
        help=f"of the reference texts; else {' or '.join(_REFERENCES)}, if there is one",
    )
    options = parser.parse(argv)
    data = _read(options.file)
    md5, samples = convert(options.file, data, options.tokens, options.references)
    content = tokenized.encode(options.file.name, md5, samples)
    try:
        write_atomic(options.output, content)
    except OSError as error:
        raise InputError(
            f"cannot write {options.output}: {error.strerror}",
            hint=f"another file: python -m sut.convert {quoted(options.file)} OUTPUT",
        ) from None
    lengths = [len(sample.tokens) for sample in samples]
    print(
        f"{options.output}: {quantity(len(samples), 'samples')}, {min(lengths):,} to "
        f"{max(lengths):,} tokens, from {options.file.name} with MD5 {md5}"
    )
    return EXIT_VALID


def convert(
    path: Path, data: bytes, tokens: str | None = None, references: str | None = None
) -> tuple[str, list[tokenized.Sample]]:
    """The MD5 sum of a pickle or Parquet file, and its samples; ``tokens`` and ``references`` name
    its columns. Raises InputError."""
    if data.startswith(_GZIP):
        data = _decompressed(path, data)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    parquet = data.startswith(_PARQUET)
    table = _of_parquet(path, data) if parquet else pickles.read_table(data, path)
    prompts = _column(path, table, tokens, _TOKENS, "--tokens")
    texts: Sequence[object] = [""] * len(prompts)
    if references is not None or set(_REFERENCES) & table.keys():
        texts = _column(path, table, references, _REFERENCES, "--references")
    if not prompts:
        raise InputError(f"{path}: has no samples", hint="download the file again")
    pairs = enumerate(zip(prompts, texts, strict=True))
    return md5, [_sample(path, index, pair) for index, pair in pairs]


def _sample(path: Path, index: int, pair: tuple[object, object]) -> tokenized.Sample:
    values = {"tokens": pair[0], "reference": pair[1]}
    try:
        return msgspec.convert(values, tokenized.Sample)
    except msgspec.ValidationError as error:
        raise InputError(
            f"{path}: sample {index}: {error}",
            hint="name the columns of token ids and texts: --tokens COLUMN --references COLUMN",
        ) from None


def _column(
    path: Path, table: Table, name: str | None, usual: Sequence[str], option: str
) -> Sequence[object]:
    found = [each for each in ([name] if name else usual) if each in table]
    if not found:
        raise InputError(
            f"{path}: no column {name or ' or '.join(usual)}; it has {', '.join(table)}",
            hint=f"{option} COLUMN",
        )
    return table[found[0]]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}",
            hint="give the file that you downloaded; where to get it: docs/benchmarks.md",
        ) from None


def _decompressed(path: Path, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: damaged or truncated gzip: {error}", hint="download the file again"
        ) from None


def _of_parquet(path: Path, data: bytes) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            f"Parquet needs the package pyarrow, which {sys.executable} does not have",
            hint=f"{sys.executable} -m pip install pyarrow",
        ) from None
    try:
        table: Table = parquet.read_table(io.BytesIO(data)).to_pydict()
    except pyarrow.ArrowException as error:
        raise InputError(
            f"{path}: damaged Parquet: {error}", hint="download the file again"
        ) from None
    return table


if __name__ == "__main__":
    sys.exit(main())
