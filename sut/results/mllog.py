"""LoadGen's detail log: the ``:::MLLOG`` lines of ``mlperf_log_detail.txt`` as values.

``read`` refuses a log that LoadGen did not finish: no verdict comes from half a log.
``read_so_far`` is for a test that still runs.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sut.errors import InputError
from sut.values import Struct

FILE_NAME = "mlperf_log_detail.txt"
PREFIX = ":::MLLOG "

AS_WRITTEN = "use the file as LoadGen wrote it, or run the test again"

Scalar = int | float | str | bool | None

# How a C++ stream prints these doubles; JSON has no word for them.
_NOT_FINITE = re.compile(r'("value": )-?(?:nan|inf|NaN|Infinity)\b')
_ONCE = ("result_validity", "effective_scenario")  # twice: two tests in one file
_NUM_ERRORS_SINCE = (5, 0, 16)  # from this version of LoadGen on, num_errors ends a log


class LogError(Struct, frozen=True, kw_only=True):
    """A line with ``is_error``. ``line`` counts from 1, ``time_ms`` from the start of the log."""

    message: str
    line: int
    time_ms: float | None = None


class DetailLog(Struct, frozen=True, kw_only=True):
    """One LoadGen test. ``values`` has the last scalar of each key; a number that is not finite is
    None. Lists and maps (sample sets, file hashes) are left out."""

    path: str
    values: dict[str, Scalar]
    errors: tuple[LogError, ...]

    @property
    def scenario(self) -> str:
        return self.text("effective_scenario")

    @property
    def mode(self) -> str:
        """``PerformanceOnly``, ``AccuracyOnly``, ``SubmissionRun`` or ``FindPeakPerformance``."""
        return self.text("effective_test_mode")

    @property
    def token_latencies(self) -> bool:
        """Whether LoadGen measured TTFT and TPOT rather than the latency of whole queries."""
        return self.values.get("requested_use_token_latencies") is True

    @property
    def version(self) -> tuple[int, ...] | None:
        """LoadGen's version as numbers; None if the log has none."""
        text = str(self.values.get("loadgen_version", "")).partition(" ")[0]
        parts = text.split(".")
        return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else None

    @property
    def num_errors(self) -> int:
        logged = self.values.get("num_errors")
        return max(len(self.errors), logged if isinstance(logged, int) else 0)

    def number(self, key: str) -> float | None:
        """The number at ``key``; None where LoadGen divided by zero."""
        value = self._require(key)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self.wrong(key, "a number")

    def count(self, key: str) -> int:
        value = self._require(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise self.wrong(key, "a count")

    def flag(self, key: str) -> bool:
        value = self._require(key)
        if isinstance(value, bool):
            return value
        raise self.wrong(key, "true or false")

    def text(self, key: str) -> str:
        value = self._require(key)
        if isinstance(value, str):
            return value
        raise self.wrong(key, "text")

    def _require(self, key: str) -> Scalar:
        if key not in self.values:
            problem = f"incomplete LoadGen log ({self.path}): no key {key!r}"
            raise InputError(problem, hint=AS_WRITTEN)
        return self.values[key]

    def wrong(self, key: str, wanted: str) -> InputError:
        return InputError(
            f"damaged LoadGen log ({self.path}): {key!r} should be {wanted}, "
            f"not {self.values[key]!r}",
            hint=AS_WRITTEN,
        )


def read(path: Path) -> DetailLog:
    """The log at ``path``, a file or a LoadGen log folder.

    Raises InputError, with file and line, for a log that is missing, empty, damaged, truncated, not
    LoadGen's, or of a test that did not finish.
    """
    path = path / FILE_NAME if path.is_dir() else path
    entries: dict[int, _Entry] = {}
    seen: set[str] = set()
    for line, raw in enumerate(_content(path).split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            entry = entries[line] = _entry(raw)
        except ValueError as error:
            raise InputError(
                f"damaged or truncated LoadGen log ({path}:{line}): {error}", hint=AS_WRITTEN
            ) from None
        if entry.key in _ONCE and entry.key in seen:
            raise InputError(
                f"damaged LoadGen log ({path}:{line}): second {entry.key!r}, so the file has more "
                "than one test",
                hint="give each test its own folder",
            )
        seen.add(entry.key)
    log = _log_of(path, entries)
    _check_whole(log)
    return log


def read_ended(folder: Path) -> DetailLog:
    """The log of a test that was ended before LoadGen could give a result. Raises InputError for
    one without LoadGen's settings."""
    path = folder / FILE_NAME
    _content(path)
    log = read_so_far(path)
    assert log is not None
    _check_settings(log)
    return log


def read_so_far(path: Path) -> DetailLog | None:
    """The part of a log file that is written; None without a file. Lines that are not whole are
    skipped."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    entries = {}
    for line, raw in enumerate(content.split(b"\n"), start=1):
        with contextlib.suppress(ValueError):
            entries[line] = _entry(raw)
    return _log_of(path, entries)


class _Metadata(msgspec.Struct):
    is_error: bool


class _Entry(msgspec.Struct):
    key: str
    value: Any
    metadata: _Metadata
    time_ms: float | None = None


def _entry(raw: bytes) -> _Entry:
    """Raises ValueError for a line that is not whole, or not LoadGen's."""
    text = raw.decode()
    if not text.startswith(PREFIX):
        raise ValueError(f"no {PREFIX.strip()} at the start of the line")
    try:
        entry = msgspec.convert(json.loads(_NOT_FINITE.sub(r"\1null", text[len(PREFIX) :])), _Entry)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if isinstance(entry.value, int) and abs(entry.value) >= 2**64:
        raise ValueError("a number of more than 64 bits")
    if isinstance(entry.value, float) and not math.isfinite(entry.value):
        entry.value = None
    return entry


def _log_of(path: Path, entries: Mapping[int, _Entry]) -> DetailLog:
    """``entries`` by their line."""
    return DetailLog(
        path=str(path),
        values={e.key: e.value for e in entries.values() if not isinstance(e.value, list | dict)},
        errors=tuple(
            LogError(message=str(e.value), line=line, time_ms=e.time_ms)
            for line, e in entries.items()
            if e.metadata.is_error
        ),
    )


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the LoadGen log ({path}): {error.strerror}",
            hint=f"give the folder that contains LoadGen's {FILE_NAME}",
        ) from None
    if not content.strip():
        raise InputError(
            f"empty LoadGen log ({path}): LoadGen wrote nothing", hint="run the test again"
        )
    if PREFIX.encode() not in content:
        raise InputError(f"not a LoadGen detail log ({path}): no line begins with {PREFIX.strip()}")
    return content


def _check_settings(log: DetailLog) -> None:
    if not {"effective_scenario", "effective_test_mode"} <= log.values.keys():
        raise InputError(
            f"incomplete LoadGen log ({log.path}): no LoadGen settings", hint=AS_WRITTEN
        )


def _check_whole(log: DetailLog) -> None:
    _check_settings(log)
    if log.mode == "AccuracyOnly":
        log.text("power_end")
        return
    if "result_validity" not in log.values:
        last = f"; its last error: {log.errors[-1].message!r}" if log.errors else ""
        raise InputError(
            f"incomplete LoadGen log ({log.path}): LoadGen did not finish this test, so there is "
            f"no result{last}",
            hint="find out why the run ended, then run the test again",
        )
    log.number(_last_key(log))


def _last_key(log: DetailLog) -> str:
    """The key that this version of LoadGen writes last: with it, nothing is missing."""
    if log.version is not None and log.version >= _NUM_ERRORS_SINCE:
        return "num_errors"
    if not log.token_latencies:
        return "result_99.90_percentile_latency_ns"
    if log.scenario == "Offline":
        return "result_tokens_per_second"
    return "result_completed_tokens_per_second"
