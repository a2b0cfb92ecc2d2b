"""LoadGen's detail log: the ``:::MLLOG`` lines of ``mlperf_log_detail.txt`` as values.

A file that LoadGen did not write to its end is an error here, so that no later code
can draw a verdict from half a log.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sut.errors import InputError
from sut.values import Struct

FILE_NAME = "mlperf_log_detail.txt"
PREFIX = ":::MLLOG "

Scalar = int | float | str | bool | None

# A C++ stream prints these doubles so; JSON has no such words.
_NOT_FINITE = re.compile(r'("value": )-?(?:nan|inf|NaN|Infinity)\b')
_ONCE = ("result_validity", "effective_scenario")  # twice: two tests in one file
_NUM_ERRORS_SINCE = (5, 0, 16)  # the version of LoadGen from which num_errors ends a log


class LogError(Struct, frozen=True, kw_only=True):
    """A line LoadGen marked ``is_error``. ``line`` counts from 1, ``time_ms`` from the log's
    start."""

    message: str
    line: int
    time_ms: float | None = None


class DetailLog(Struct, frozen=True, kw_only=True):
    """One LoadGen test. ``values`` holds the last scalar of each key; a number that is
    not finite is None. Lists and maps (sample sets, file hashes) are left out."""

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
        """True when LoadGen measured TTFT and TPOT rather than whole-query latency."""
        return self.values.get("requested_use_token_latencies") is True

    @property
    def version(self) -> tuple[int, ...] | None:
        """LoadGen's, as numbers; None where the log does not tell."""
        text = str(self.values.get("loadgen_version", "")).partition(" ")[0]
        parts = text.split(".")
        return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else None

    @property
    def num_errors(self) -> int:
        logged = self.values.get("num_errors")
        return max(len(self.errors), logged if isinstance(logged, int) else 0)

    def number(self, key: str) -> float | None:
        """The number at ``key``; None where LoadGen divided by nothing."""
        value = self._require(key)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self._wrong(key, "a number")

    def count(self, key: str) -> int:
        value = self._require(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise self._wrong(key, "a count")

    def flag(self, key: str) -> bool:
        value = self._require(key)
        if isinstance(value, bool):
            return value
        raise self._wrong(key, "true or false")

    def text(self, key: str) -> str:
        value = self._require(key)
        if isinstance(value, str):
            return value
        raise self._wrong(key, "text")

    def _require(self, key: str) -> Scalar:
        if key not in self.values:
            raise InputError(
                f"{self.path}: incomplete: LoadGen's key {key!r} is not in it. "
                "The run was ended early or the file was cut; run the test again."
            )
        return self.values[key]

    def _wrong(self, key: str, wanted: str) -> InputError:
        return InputError(
            f"{self.path}: damaged: {key!r} should be {wanted}, "
            f"not {self.values[key]!r}. Use the file as LoadGen wrote it."
        )


def read(path: Path) -> DetailLog:
    """The log at ``path``, a file or a LoadGen log folder.

    Raises InputError, naming file and line, for a log that is missing, empty, damaged,
    cut, not LoadGen's, or of a test that did not finish.
    """
    path = path / FILE_NAME if path.is_dir() else path
    values: dict[str, Scalar] = {}
    errors: list[LogError] = []
    for line, entry in _entries(path):
        key, value = entry["key"], entry["value"]
        if key in _ONCE and key in values:
            raise InputError(
                f"{path}:{line}: damaged: {key!r} stands here a second time. "
                "The file holds more than one test; give each test its own folder."
            )
        if entry["metadata"]["is_error"]:
            time_ms = entry.get("time_ms")
            errors.append(
                LogError(
                    message=str(value),
                    line=line,
                    time_ms=time_ms if isinstance(time_ms, int | float) else None,
                )
            )
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        if not isinstance(value, list | dict):
            values[key] = value
    log = DetailLog(path=str(path), values=values, errors=tuple(errors))
    _check_whole(log)
    return log


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror}). Give the folder that holds "
            f"LoadGen's {FILE_NAME}."
        ) from None
    if not content.strip():
        raise InputError(f"{path}: empty. LoadGen wrote nothing; run the test again.")
    if PREFIX.encode() not in content:
        raise InputError(f"{path}: not a LoadGen detail log: no line begins with {PREFIX.strip()}.")
    for line, raw in enumerate(content.split(b"\n"), start=1):
        if raw.strip():
            yield line, _entry(path, line, raw)


def _entry(path: Path, line: int, raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode()
        if not text.startswith(PREFIX):
            raise ValueError(f"it does not begin with {PREFIX.strip()}")
        entry = json.loads(_NOT_FINITE.sub(r"\1null", text[len(PREFIX) :]))
        if not (
            isinstance(entry["key"], str)
            and "value" in entry
            and isinstance(entry["metadata"]["is_error"], bool)
        ):
            raise ValueError("key, value or metadata.is_error is not as LoadGen writes it")
        if isinstance(entry["value"], int) and abs(entry["value"]) >= 2**64:
            raise ValueError("a number of more than 64 bits")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}:{line}: damaged or cut: not one of LoadGen's lines ({error}). "
            "Use the file as LoadGen wrote it, or run the test again."
        ) from None
    return dict(entry)


def _check_whole(log: DetailLog) -> None:
    if not {"effective_scenario", "effective_test_mode"} <= log.values.keys():
        raise InputError(
            f"{log.path}: not a whole LoadGen log: it holds no LoadGen settings. "
            "Give a log of MLPerf Inference, as LoadGen wrote it."
        )
    if log.mode == "AccuracyOnly":
        log.text("power_end")
        return
    if "result_validity" not in log.values:
        last = f" Its last error: {log.errors[-1].message!r}." if log.errors else ""
        raise InputError(
            f"{log.path}: incomplete: LoadGen did not finish this test, so it has no "
            f"result.{last} Find out why the run ended, then run it again."
        )
    log.number(_last_key(log))


def _last_key(log: DetailLog) -> str:
    """The key this version of LoadGen writes last: where it is, nothing was cut."""
    if log.version is not None and log.version >= _NUM_ERRORS_SINCE:
        return "num_errors"
    if not log.token_latencies:
        return "result_99.90_percentile_latency_ns"
    if log.scenario == "Offline":
        return "result_tokens_per_second"
    return "result_completed_tokens_per_second"
