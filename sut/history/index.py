"""The index of a run root: one SQLite file, made of the records by whoever reads.

The records are the truth. The file can be deleted at any time, one that is damaged is thrown away,
and a job never touches it. SQLite works on a copy in memory; the file is read and replaced as a
whole, so no lock is needed, no reader sees half of it, and killing one leaves the file as it was.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sut.errors import InputError
from sut.history.row import Row, read_row
from sut.rundir import RunDir, write_atomic

FILE_NAME = ".history.sqlite"
VERSION = 1  # of the table; a file of another version is thrown away
MAX_DEPTH = 3  # folders of runs in folders of runs
STALE_S = 60.0  # age at which a reader that died can't be writing its file any more


COLUMNS = tuple(field.name for field in msgspec.structs.fields(Row))
SCHEMA = f"CREATE TABLE runs ({', '.join(COLUMNS)}, PRIMARY KEY (path)) WITHOUT ROWID"


class Index:
    """The records under ``root``, found and read as far as they have changed."""

    def __init__(self, root: Path) -> None:
        """Raises InputError where ``root`` holds no runs but is one, or can't be read."""
        self.root = root
        self._database = _load(root / FILE_NAME)
        found, self.without_record = _scan(root)
        self._refresh(found)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, where: str = "", values: Sequence[Any] = (), limit: int = 0) -> list[Row]:
        """The rows for which ``where``, an SQL condition, holds, newest first; ``limit`` 0: all."""
        query = f"SELECT {', '.join(COLUMNS)} FROM runs"
        query += f" WHERE {where}" * bool(where) + " ORDER BY created_utc DESC, path DESC"
        query += f" LIMIT {limit}" * bool(limit)
        return list(map(_row, self._database.execute(query, values)))

    def count(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM runs").fetchone()[0])

    def _refresh(self, found: dict[str, os.stat_result]) -> None:
        """Bring the table up to what was found, and the file up to the table."""
        known = {
            path: (mtime_ns, size)
            for path, mtime_ns, size in self._database.execute(
                "SELECT path, mtime_ns, size FROM runs"
            )
        }
        gone = known.keys() - found.keys()
        changed = [
            (path, stat)
            for path, stat in found.items()
            if known.get(path) != (stat.st_mtime_ns, stat.st_size)
        ]
        if not gone and not changed:
            return
        places = ", ".join("?" * len(COLUMNS))
        with self._database as transaction:
            transaction.executemany("DELETE FROM runs WHERE path = ?", [(p,) for p in gone])
            transaction.executemany(
                f"INSERT OR REPLACE INTO runs VALUES ({places})",
                (msgspec.structs.astuple(read_row(self.root, *each)) for each in changed),
            )
        _save(self._database, self.root / FILE_NAME)


def _load(path: Path) -> sqlite3.Connection:
    """The file's table in memory; an empty table where the file is missing or not whole."""
    memory = sqlite3.connect(":memory:")
    try:
        if path.is_file():
            source = f"{path.absolute().as_uri()}?immutable=1"
            with contextlib.closing(sqlite3.connect(source, uri=True)) as file:
                file.backup(memory)
            _check(memory)
            return memory
    except (sqlite3.Error, OSError, ValueError):
        memory.close()  # whatever is wrong with it, the records have it all
        memory = sqlite3.connect(":memory:")
    memory.execute(SCHEMA)
    memory.execute(f"PRAGMA user_version = {VERSION}")
    return memory


def _check(database: sqlite3.Connection) -> None:
    """Raises sqlite3.Error or ValueError for what is not a whole index."""
    if database.execute("PRAGMA user_version").fetchone() != (VERSION,):
        raise sqlite3.DatabaseError("of another version")
    if database.execute("SELECT sql FROM sqlite_master").fetchall() != [(SCHEMA,)]:
        raise sqlite3.DatabaseError("not this table")
    if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("damaged")
    if database.execute("PRAGMA application_id").fetchone() != (_checksum(database),):
        raise sqlite3.DatabaseError("its rows are not what was written")


def _checksum(database: sqlite3.Connection) -> int:
    """Of every row: SQLite sees a damaged page, not a damaged value."""
    total = 0
    for row in database.execute(f"SELECT {', '.join(COLUMNS)} FROM runs ORDER BY path"):
        total = zlib.crc32(repr(row).encode(errors="replace"), total)
    return total & 0x7FFF_FFFF  # SQLite's application_id is signed


def _save(database: sqlite3.Connection, path: Path) -> None:
    """Replace the file. Where that can't be done the index lives as long as this process."""
    database.execute(f"PRAGMA application_id = {_checksum(database)}")
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / FILE_NAME
        with contextlib.closing(sqlite3.connect(copy)) as file:
            database.backup(file)
        write_atomic(path, copy.read_bytes())
        _remove_leftovers(path)


def _remove_leftovers(path: Path) -> None:
    """What readers left that were killed while they wrote."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        if time.time() - leftover.stat().st_mtime > STALE_S:
            leftover.unlink(missing_ok=True)


def _scan(root: Path) -> tuple[dict[str, os.stat_result], list[str]]:
    """Records by their folder under ``root``, and the folders of runs that have none."""
    if RunDir(root).plan.is_file():
        raise InputError(f"{root}: this is one run. Give the folder that holds runs")
    records: dict[str, os.stat_result] = {}
    without = []
    try:
        for folder, stat in _runs_under(root, "", MAX_DEPTH):
            if stat is None:
                without.append(folder)
            else:
                records[folder] = stat
    except OSError as error:
        raise InputError(
            f"{error.filename or root}: {error.strerror}. "
            "Say where runs are kept: --site NAME or --root DIR"
        ) from None
    return records, sorted(without)


def _runs_under(
    folder: Path | str, name: str, depth: int
) -> Iterator[tuple[str, os.stat_result | None]]:
    """Each run's folder and its record's status, None for a run without one. Symlinks, such as
    ``latest``, and hidden folders are not followed."""
    with os.scandir(folder) as entries:
        folders = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]
    for each in folders:
        path, below = f"{folder}/{each}", f"{name}/{each}" if name else each
        try:
            yield below, os.stat(f"{path}/record.json")
        except OSError:
            if os.path.exists(f"{path}/plan.json"):
                yield below, None
            elif depth > 1:
                with contextlib.suppress(OSError):  # removed meanwhile, or not ours to read
                    yield from _runs_under(path, below, depth - 1)


def _row(values: Sequence[Any]) -> Row:
    return msgspec.convert(dict(zip(COLUMNS, values, strict=True)), Row, strict=False)
