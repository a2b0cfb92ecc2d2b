"""LoadGen's detail log: the ``:::MLLOG`` lines of ``mlperf_log_detail.txt`` as values.

``read`` refuses a log that LoadGen did not finish: no verdict comes from half a log.
``read_so_far`` is for a test that still runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sut.errors import InputError, quoted
from sut.results import log_lines
from sut.results.log_lines import PREFIX, Entry, NotWhole
from sut.values import Struct

FILE_NAME = "mlperf_log_detail.txt"

AS_WRITTEN = "use the file as LoadGen wrote it, or run the test again"

Scalar = int | float | str | bool | None

_OLD = re.compile(rb'"pid": \d+, "tid": \d+, "ts": ')  # before LoadGen 1.0
_VERSION_PART = re.compile("[0-9]{1,9}")
_ONCE = ("result_validity", "effective_scenario")  # twice: two tests in one file
_NUM_ERRORS_SINCE = (5, 0, 16)  # from this version of LoadGen on, num_errors ends a log


class LogError(Struct, frozen=True, kw_only=True):
    """An error that LoadGen logged. ``line`` counts from 1, ``time_ms`` from the start of the log;
    it is None for an error before it, e.g. in a configuration file."""

    message: str
    line: int
    time_ms: float | None = None


class DetailLog(Struct, frozen=True, kw_only=True):
    """One LoadGen test. ``values`` has the last scalar of each key; a number that is not finite is
    None. Lists and maps (sample sets, file hashes) are left out. ``contradictions`` are those of
    its flags, keys and count of errors: LoadGen writes none."""

    path: str
    values: dict[str, Scalar]
    errors: tuple[LogError, ...]
    contradictions: tuple[str, ...] = ()

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
        return tuple(map(int, parts)) if all(map(_VERSION_PART.fullmatch, parts)) else None

    @property
    def num_errors(self) -> int:
        return max(len(self.errors), self.logged_errors or 0)

    @property
    def logged_errors(self) -> int | None:
        """LoadGen's own count, which older versions do not log."""
        logged = self.values.get("num_errors")
        return logged if isinstance(logged, int) and not isinstance(logged, bool) else None

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
    path = find(path)
    entries: dict[int, Entry] = {}
    seen: set[str] = set()
    for line, entry in log_lines.entries(_content(path)):
        if isinstance(entry, NotWhole):
            raise InputError(
                f"damaged or truncated LoadGen log ({path}:{line}): {entry.problem}",
                hint=AS_WRITTEN,
            )
        entries[line] = entry
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


def find(path: Path) -> Path:
    """The detail log at ``path``, a file or a LoadGen log folder. LoadGen's prefix, date and suffix
    of log names may be any. Raises InputError for a folder with several such logs."""
    if not path.is_dir() or (path / FILE_NAME).exists():
        return path / FILE_NAME if path.is_dir() else path
    found = sorted(each for each in path.glob("*detail*.txt") if _is_log(each))
    if len(found) > 1:
        raise InputError(
            f"several LoadGen logs ({path}): {_some(each.name for each in found)}",
            hint="give the file of one test",
        )
    return found[0] if found else path / FILE_NAME


def _is_log(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return PREFIX.encode() in file.readline(len(PREFIX) + 3)  # after a byte order mark
    except OSError:
        return False


def companion(detail: Path, name: str) -> Path:
    """LoadGen's other log of the same test, e.g. ``accuracy.json``: it has the prefix, date and
    suffix of the detail log."""
    prefix, _, suffix = detail.stem.rpartition("detail")
    what, _, kind = name.rpartition(".")
    return detail.with_name(f"{prefix}{what}{suffix}.{kind}")


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
    found = log_lines.entries(content)
    return _log_of(path, {line: e for line, e in found if isinstance(e, Entry)})


def _log_of(path: Path, entries: Mapping[int, Entry]) -> DetailLog:
    """``entries`` by their line."""
    errors, contradictions = log_lines.errors(entries)
    return DetailLog(
        path=str(path),
        values={e.key: e.value for e in entries.values() if not isinstance(e.value, list | dict)},
        errors=tuple(
            LogError(message=str(entry.value), line=line, time_ms=entry.time_ms)
            for line, entry in errors.items()
        ),
        contradictions=contradictions,
    )


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    first, *rest = names
    return ", ".join([first, *rest[:2]]) + (f" and {len(rest) - 2} more" if len(rest) > 2 else "")


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        logs = [log for depth in ("*", "*/*") for log in path.parent.glob(f"{depth}/{FILE_NAME}")]
        hint = f"give the folder that contains LoadGen's {FILE_NAME}"
        raise InputError(
            f"cannot read the LoadGen log ({path}): {error.strerror}",
            hint=f"{hint}: {_some(str(log.parent) for log in sorted(logs))}" if logs else hint,
        ) from None
    if not content.strip():
        raise InputError(
            f"empty LoadGen log ({path}): LoadGen wrote nothing", hint="run the test again"
        )
    if PREFIX.encode() not in content:
        if _OLD.match(content):
            raise InputError(
                f"cannot read the LoadGen log ({path}): it is in LoadGen's old format, without "
                f"{PREFIX.strip()}",
                hint="run the test with a LoadGen of 2020 or later",
            )
        raise InputError(
            f"not a LoadGen detail log ({path}): no line begins with {PREFIX.strip()}",
            hint=f"give LoadGen's {FILE_NAME}",
        )
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
        if log.mode == "FindPeakPerformance" and log.scenario != "Server":
            raise InputError(
                f"no result in the LoadGen log ({log.path}): FindPeakPerformance is for Server, "
                f"not for {log.scenario}",
                hint="run LoadGen in mode PerformanceOnly",
            )
        last = f"; its last error: {log.errors[-1].message!r}" if log.errors else ""
        raise InputError(
            f"incomplete LoadGen log ({log.path}): LoadGen did not finish this test, so there is "
            f"no result{last}",
            hint=f"read its last lines, then run the test again: tail {quoted(log.path)}",
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
