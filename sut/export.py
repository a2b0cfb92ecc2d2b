"""``python -m sut.export RUN...``: runs and their samples as tables for other tools."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sut.command import Parser, command
from sut.errors import EXIT_VALID, InputError
from sut.history.row import Row, read_row
from sut.launch.options import add_runs, find_runs, shared
from sut.results import record, sample_log
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir, write_atomic
from sut.units import quantity

RUNS, SAMPLES = "runs", "samples"
_OF_FILES = ("path", "mtime_ns", "size")  # of a row: not of the run
Table = dict[str, list[Any]]  # by column


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m sut.export",
        description="Write runs.csv (a row a run) and samples.csv (a row for each completed sample "
        "of each test), or the same as Parquet.",
        epilog="exit codes: 0 written, 2 bad input",
        examples=("latest", "RUN RUN --format parquet --output tables"),
        parents=[shared("site", "root")],
    )
    add_runs(parser, nargs="+")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument(
        "--output", type=Path, default=Path("export"), metavar="DIR", help="default: export"
    )
    options = parser.parse(argv)
    folders = find_runs(options.run, options)
    if options.output.is_file():
        raise InputError(
            f"{options.output} is a file, not a folder", hint="another folder: --output DIR"
        )
    tables = {RUNS: runs(folders), SAMPLES: samples(folders)}
    for name, table in tables.items():
        path = options.output / f"{name}.{options.format}"
        content = to_csv(table) if options.format == "csv" else to_parquet(table)
        try:
            write_atomic(path, content)
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}", hint="another folder: --output DIR"
            ) from None
        print(f"{path}: {quantity(len(next(iter(table.values()))), 'rows')}")
    return EXIT_VALID


def runs(folders: Sequence[RunDir]) -> Table:
    """A row a run: what ``sut.history`` lists. Raises InputError for a damaged record."""
    names = [name for name in Row.__struct_fields__ if name not in _OF_FILES]
    table: Table = {name: [] for name in names}
    for folder in folders:
        record.read(folder.record)  # says what is wrong with it
        row = read_row(folder.root.parent, folder.root.name, folder.record.stat())
        for name in names:
            table[name].append(getattr(row, name))
    return table


def samples(folders: Sequence[RunDir]) -> Table:
    """A row for each completed sample, in order of completion within its test. Times are in ms from
    the test's start; latencies are the dispatcher's. Raises InputError."""
    own = SampleLog.__struct_fields__
    table: Table = {name: [] for name in ("run_id", "test", *own, "ttft_ms", "tpot_ms")}
    for folder in folders:
        for test, log in _logs(folder):
            rows = range(len(log))
            table["run_id"] += [folder.root.name] * len(log)
            table["test"] += [test] * len(log)
            for name in own:
                table[name] += getattr(log, name)
            table["ttft_ms"] += map(log.ttft_ms, rows)
            table["tpot_ms"] += map(log.tpot_ms, rows)
    return table


def _logs(folder: RunDir) -> Iterator[tuple[str, SampleLog]]:
    for phase in record.read(folder.record).phases:
        if log := sample_log.read(folder.samples(phase.name)):
            yield phase.name, log


def to_csv(table: Table) -> str:
    """Unknown values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()


def to_parquet(table: Table) -> bytes:
    """Raises InputError without pyarrow, which nothing else here needs."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            f"Parquet needs the package pyarrow, which {sys.executable} does not have",
            hint="pip install pyarrow, or --format csv",
        ) from None
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(table), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


if __name__ == "__main__":
    sys.exit(main())
