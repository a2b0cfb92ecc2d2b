"""``python -m sut.export RUN...``: runs and their samples as tables for other tools."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sut.command import Parser, a_path, command
from sut.errors import EXIT_VALID, InputError
from sut.history.row import Row, read_row
from sut.launch.options import add_runs, find_runs, shared
from sut.results import record, sample_log
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir, write_atomic
from sut.units import quantity

RUNS, SAMPLES = "runs", "samples"

Table = dict[str, list[Any]]  # by column
Types = dict[str, type]  # by column: str, int, float or bool; any may lack a value
_OF_FILES = ("path", "mtime_ns", "size")  # of a row: not of the run
TYPES: dict[str, Types] = {
    RUNS: {
        name: next(iter(get_args(hint)), hint)  # float of float | None
        for name, hint in get_type_hints(Row).items()
        if name not in _OF_FILES
    },
    SAMPLES: {
        **dict.fromkeys(("run_id", "test"), str),
        **{name: float if name.endswith("_ms") else int for name in SampleLog.__struct_fields__},
        **dict.fromkeys(("ttft_ms", "tpot_ms"), float),
    },
}


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
        "--output", type=a_path, default=Path("export"), metavar="DIR", help="default: export"
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
        replaced = ", in place of an earlier export" if path.exists() else ""
        content = to_csv(table) if options.format == "csv" else to_parquet(table, TYPES[name])
        try:
            write_atomic(path, content)
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}", hint="another folder: --output DIR"
            ) from None
        print(f"{path}: {quantity(len(next(iter(table.values()))), 'rows')}{replaced}")
    with_samples = set(tables[SAMPLES]["run_id"])
    for name in (folder.root.name for folder in folders if folder.root.name not in with_samples):
        print(f"note: {name} has no samples: no test of it is recorded")
    return EXIT_VALID


def runs(folders: Sequence[RunDir]) -> Table:
    """A row a run: what ``sut.history`` lists. Raises InputError for a damaged record."""
    table: Table = {name: [] for name in TYPES[RUNS]}
    for folder in folders:
        record.read(folder.record)  # says what is wrong with it
        row = read_row(folder.root.parent, folder.root.name, folder.record.stat())
        for name, column in table.items():
            column.append(getattr(row, name))
    return table


def samples(folders: Sequence[RunDir]) -> Table:
    """A row for each completed sample, in order of completion within its test. Times are in ms from
    the test's start; latencies are the dispatcher's. Raises InputError."""
    table: Table = {name: [] for name in TYPES[SAMPLES]}
    for folder in folders:
        for test, log in _logs(folder):
            rows = range(len(log))
            table["run_id"] += [folder.root.name] * len(log)
            table["test"] += [test] * len(log)
            for name in SampleLog.__struct_fields__:
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


def to_parquet(table: Table, types: Types) -> bytes:
    """The same types for every table, also for a column without a value: other tools read several
    files as one. Raises InputError without pyarrow, which nothing else here needs."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            f"Parquet needs the package pyarrow, which {sys.executable} does not have",
            hint=f"{sys.executable} -m pip install pyarrow; or --format csv",
        ) from None
    arrow = {str: "string", int: "int64", float: "float64", bool: "bool"}
    schema = pyarrow.schema([(name, arrow[kind]) for name, kind in types.items()])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(table, schema), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


if __name__ == "__main__":
    sys.exit(main())
