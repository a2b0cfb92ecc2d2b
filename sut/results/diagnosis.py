"""What logs show about a failure: a known cause and its remedy, or else their last error lines."""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from sut.errors import RunError
from sut.values import Struct

FILE = Path(__file__).with_name("known_failures.toml")
SCAN_BYTES = 2**20  # of a log's end: eight ranks can each print a traceback after the cause
NUM_MATCHES = 3
NUM_LINES = 12
NUM_CONTINUED = 3  # lines of an exception's message after its first
WIDTH = 400
MARK = "| "  # begins each line of a log in a message

# A terminal would act on them.
_CONTROL = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# What vLLM and torchrun put before a line: the process, the level, the time and the source.
_PREFIX = re.compile(
    r"(?:\([^()]*\bpid=\d+[^()]*\) ?|\[rank\d+\]: ?|"
    r"(?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)*"
)
_LEVELS = ("ERROR", "CRITICAL")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
_ERROR = re.compile(
    r"[\w.]*(Error|Exception|Interrupt)\b|\b(ERROR|FATAL|CRITICAL|Fatal|Aborted|Killed)\b|"
    r"\berror:|\bpanic:|Segmentation fault|core dumped|terminate called|\[E[ \d]|NCCL WARN"
)
# The first line of submitit in each attempt of a job, whose attempts share a log.
_ATTEMPT = "Starting with JobEnvironment("


class KnownFailure(Struct, frozen=True, kw_only=True):
    """``pattern`` finds its line in a log. ``cause`` and ``remedy`` are for people; ``source`` is
    the URL of a public log with such a line."""

    group: str
    pattern: str
    cause: str
    remedy: str
    source: str

    def find(self, lines: Iterable[str]) -> list[str]:
        """The lines that match."""
        pattern = re.compile(self.pattern)
        return [line for line in lines if pattern.search(line)]


class Diagnosis(NamedTuple):
    """``lines`` are those of ``log`` that show the failure; ``known`` is None for one that is not
    known. ``what`` is what the lines are."""

    log: Path
    what: str
    lines: tuple[str, ...]
    known: KnownFailure | None = None

    def error(
        self,
        failed: str,
        *,
        code: str,
        hint: str = "",
        replica: int | None = None,
        node: str | None = None,
    ) -> RunError:
        """The error that ``failed``, e.g. ``replica 0 exited with code 1``, has with its cause and
        the log's lines. ``hint`` is for a failure that is not known."""
        message, hint = self.message(failed), self.known.remedy if self.known else hint
        return RunError(message, hint=hint, code=code, replica=replica, node=node)

    def message(self, failed: str) -> str:
        """Without the hint. The first line has no path: terminals break long ones anywhere."""
        cause = f": {self.known.cause}" if self.known else ""
        return "\n".join([failed + cause, f"{self.what} {self.log}:", *map(marked, self.lines)])


@functools.cache
def known_failures() -> dict[str, KnownFailure]:
    """By name. Of several that match a log, the first is the cause of the others."""
    return msgspec.convert(tomllib.loads(FILE.read_text()), dict[str, KnownFailure])


def known(text: str) -> KnownFailure | None:
    """The known failure that a program's output shows."""
    lines = text.splitlines()
    return next((each for each in known_failures().values() if each.find(lines)), None)


def of(*logs: Path) -> Diagnosis:
    """What one of the logs shows: a known failure, or the last error lines of the first log that
    has any. A log that cannot be read is empty."""
    texts = {log: _read(log) for log in logs}
    serious = {log: [line for line in texts[log] if _is_serious(line)] for log in logs}
    for each in known_failures().values():
        for log, lines in serious.items():
            if found := each.find(lines):
                return Diagnosis(log, "from", _clipped(_once(found)[:NUM_MATCHES]), each)
    for log, lines in texts.items():
        if errors := _error_lines(lines):
            return Diagnosis(log, "last error lines of", _clipped(errors))
    log = next((log for log, lines in texts.items() if lines), logs[0])
    return Diagnosis(log, "end of", _clipped(texts[log][-NUM_LINES:]) or ("(empty)",))


def marked(line: str) -> str:
    """A line of a log as it is in a message: it cannot be taken for one of ours."""
    return MARK + line


def _read(log: Path) -> list[str]:
    """The last non-blank lines of a log, of its last attempt, without control characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - SCAN_BYTES))
            text = file.read(SCAN_BYTES).decode(errors="replace")
    except OSError:
        return []
    before, _, _ = text.rpartition(_ATTEMPT)
    lines = _CONTROL.sub("", text[before.rfind("\n") + 1 :] if before else text).splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def _is_serious(line: str) -> bool:
    """Whether a line can show a failure: vLLM also warns of what it does without."""
    return _split(line)[0] in ("", *_LEVELS)


def _once(lines: Iterable[str]) -> list[str]:
    """The lines without those that differ from an earlier one only by their prefix."""
    first: dict[str, str] = {}
    for line in lines:
        first.setdefault(_split(line)[1], line)
    return list(first.values())


def _clipped(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..." for line in lines)


class _Error(NamedTuple):
    """An error in a log: the last frame of its traceback, if it has one, its line and those that
    continue its message."""

    frame: list[str]
    lines: list[str]


def _error_lines(lines: Iterable[str]) -> list[str]:
    """The last errors, each once, with the place in the code for the last of them."""
    found: dict[str, _Error] = {}
    frame: list[str] = []
    in_traceback, last = False, None
    for line in lines:
        level, bare = _split(line)
        if bare.startswith((" ", "\t")):
            if in_traceback and bare.lstrip().startswith('File "'):
                frame = [line]
            elif in_traceback and len(frame) == 1:
                frame.append(line)
            elif not in_traceback and last and len(last.lines) <= NUM_CONTINUED:
                last.lines.append(line)
            continue
        last = None
        if bare.startswith(_TRACEBACK):
            in_traceback, frame = True, []
        elif bare and not bare.startswith(_CHAINED):
            if in_traceback or level in _LEVELS or (not level and _ERROR.search(bare)):
                found.pop(bare, None)  # its last occurrence counts
                last = found[bare] = _Error(frame, [line])
            in_traceback, frame = False, []
    return _last_of(list(found.values()))


def _last_of(errors: list[_Error]) -> list[str]:
    """As many of the last errors as fit, at least one."""
    kept: list[str] = []
    for error in reversed(errors):
        block = error.lines if kept else [*error.frame, *error.lines]
        if kept and len(block) + len(kept) > NUM_LINES:
            break
        kept = [*block, *kept]
    return kept


def _split(line: str) -> tuple[str, str]:
    """A line's level, empty if it has none, and the line without its prefix."""
    prefix = _PREFIX.match(line)
    assert prefix is not None  # it matches an empty prefix
    return prefix["level"] or "", line[prefix.end() :]
