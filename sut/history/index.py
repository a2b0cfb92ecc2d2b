"""The index of a run root: one SQLite file, built from the records by each reader.

The records are the data. The file can be deleted at any time, a damaged one is discarded, and jobs
never use it. SQLite works on a copy in memory. The file is read and replaced as a whole, so it
needs no lock, and a killed reader leaves it unchanged.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sut.errors import InputError, quoted
from sut.history.row import Row, read_row
from sut.rundir import RunDir, remove_stale, write_atomic

FILE_NAME = ".history.sqlite"
VERSION = 6  # of the table; a file of another version is discarded
MAX_DEPTH = 3  # levels of folders that are searched for runs


COLUMNS = tuple(field.name for field in msgspec.structs.fields(Row))
SCHEMA = f"CREATE TABLE runs ({', '.join(COLUMNS)}, PRIMARY KEY (path)) WITHOUT ROWID"


class Index:
    """The records under ``root``. Opening it reads those that changed."""

    def __init__(self, root: Path) -> None:
        """Raises InputError if ``root`` is a run itself, or is not readable."""
        self.root = root
        self._database = _load(root / FILE_NAME)
        found, self.without_record = _scan(root)
        self._refresh(found)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def rows(self, where: str = "", values: Sequence[Any] = (), limit: int = 0) -> list[Row]:
        """Rows that match ``where``, an SQL condition, newest first. ``limit`` 0: all."""
        query = f"SELECT {', '.join(COLUMNS)} FROM runs"
        query += f" WHERE {where}" * bool(where) + " ORDER BY created_utc DESC, path DESC"
        query += f" LIMIT {limit}" * bool(limit)
        found = (dict(zip(COLUMNS, r, strict=True)) for r in self._database.execute(query, values))
        return msgspec.convert(list(found), list[Row], strict=False)

    def count(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM runs").fetchone()[0])

    def _refresh(self, found: dict[str, os.stat_result]) -> None:
        """Update the table from the records found, and the file from the table."""
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
    """The file's table in memory; an empty table if the file is missing or damaged."""
    memory = sqlite3.connect(":memory:")
    with contextlib.suppress(sqlite3.Error, OSError, ValueError):  # the records have all of it
        if path.is_file():
            source = f"{path.absolute().as_uri()}?immutable=1"
            with contextlib.closing(sqlite3.connect(source, uri=True)) as file:
                file.backup(memory)
            if _is_whole(memory):
                return memory
    memory.close()
    memory = sqlite3.connect(":memory:")
    memory.execute(SCHEMA)
    memory.execute(f"PRAGMA user_version = {VERSION}")
    return memory


def _is_whole(database: sqlite3.Connection) -> bool:
    """Whether it is an undamaged index of this version. May raise sqlite3.Error or ValueError."""

    def only(query: str, value: object) -> bool:
        return database.execute(query).fetchall() == [(value,)]

    return (
        only("PRAGMA user_version", VERSION)
        and only("SELECT sql FROM sqlite_master", SCHEMA)
        and only("PRAGMA quick_check", "ok")
        and only("PRAGMA application_id", _checksum(database))
    )


def _checksum(database: sqlite3.Connection) -> int:
    """Of every row: SQLite detects a damaged page, not a damaged value."""
    total = 0
    for row in database.execute(f"SELECT {', '.join(COLUMNS)} FROM runs ORDER BY path"):
        total = zlib.crc32(repr(row).encode(errors="replace"), total)
    return total & 0x7FFF_FFFF  # SQLite's application_id is signed


def _save(database: sqlite3.Connection, path: Path) -> None:
    """Replace the file. If it is not writable, the index lasts as long as this process."""
    database.execute(f"PRAGMA application_id = {_checksum(database)}")
    with contextlib.suppress(OSError, sqlite3.Error), tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / FILE_NAME
        with contextlib.closing(sqlite3.connect(copy)) as file:
            database.backup(file)
        write_atomic(path, copy.read_bytes())
        remove_stale(path.parent, f".{path.name}.*")  # of readers killed while writing


def _scan(root: Path) -> tuple[dict[str, os.stat_result], list[str]]:
    """Records by their folder under ``root``, and the folders of runs without a record."""
    if RunDir(root).plan.is_file():
        raise InputError(
            f"{root}: this is one run, not a folder of runs",
            hint=f"give the folder that contains it: --root {quoted(root.parent)}",
        )
    records: dict[str, os.stat_result] = {}
    without = []
    try:
        for folder, stat in _runs_under(root, "", MAX_DEPTH):
            if stat is None:
                without.append(folder)
            else:
                records[folder] = stat
    except FileNotFoundError as error:
        raise InputError(
            f"no runs: the folder does not exist ({error.filename or root})",
            hint="start one: python -m sut.submit; runs elsewhere: --site NAME, --root DIR or "
            "SUT_RUN_ROOT",
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot list the runs ({error.filename or root}): {error.strerror}",
            hint="give the folder that contains the runs: --site NAME or --root DIR",
        ) from None
    return records, sorted(without)


def _runs_under(
    folder: Path | str, name: str, depth: int
) -> Iterator[tuple[str, os.stat_result | None]]:
    """Each run's folder and its record's stat; None if it has no record. Symlinks, such as
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
                with contextlib.suppress(OSError):  # removed since, or not readable
                    yield from _runs_under(path, below, depth - 1)
