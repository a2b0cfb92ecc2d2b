"""Judge every LoadGen log of a results repository: ``python -m benchmarks.log_sweep GITDIR``.

For each ``*detail*.txt`` of HEAD, ``sut.verdict`` must end without a traceback, agree with the
``result_validity`` of the log, and call no log VALID that the log or its summary calls INVALID.
The repositories are MLCommons', e.g. github.com/mlcommons/inference_results_v5.1; a bare clone is
enough, and a blob that is absent is counted. Exit code 0 if all of it holds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import IO

from sut import verdict
from sut.errors import EXIT_BAD_INPUT, EXIT_INVALID, EXIT_VALID
from sut.results import mllog
from sut.values import Struct

_DETAIL = re.compile(r'"result_validity", "value": "(\w+)"')
_SUMMARY = re.compile(r"^Result is : (\w+)", re.MULTILINE)
_MODE = re.compile(r'"effective_test_mode", "value": "(\w+)"')
_NUMBER = re.compile(r"\d+")
EXAMPLES = 5
BATCH = 100  # logs, for one process


class Judged(Struct, frozen=True, kw_only=True):
    """One log. ``found`` is our verdict, or ``refused`` or ``traceback``, with the ``message``;
    ``detail`` and ``summary`` are LoadGen's, empty where it gives none."""

    path: str
    mode: str
    detail: str
    summary: str
    found: str
    message: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """What of this module's promise does not hold; empty if all does."""
        if self.found == "traceback":
            return "traceback"
        if self.found == "VALID" and "INVALID" in (self.detail, self.summary):
            return "VALID, and LoadGen calls it INVALID"
        if self.found in ("VALID", "INVALID") and self.found != self.detail:
            return f"{self.found}, and LoadGen calls it {self.detail or 'nothing'}"
        if self.found == "refused" and self.detail and self.mode == "PerformanceOnly":
            return "refused, and LoadGen has a result"
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log_sweep", description=__doc__)
    parser.add_argument("git_dir", type=Path)
    parser.add_argument("--under", default="", help="only this folder of the repository")
    options = parser.parse_args(argv)
    paths = detail_logs(options.git_dir, options.under)
    with ProcessPoolExecutor(max_workers=2) as pool:
        parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        found = pool.map(judge_all, itertools.repeat(options.git_dir), parts)
        judged = [each for part in found for each in part]
    print("\n".join(report(judged, num_absent=len(paths) - len(judged))))
    return 1 if any(each.problem for each in judged) else 0


def detail_logs(git_dir: Path, under: str) -> list[str]:
    command = ["git", "--git-dir", str(git_dir), "ls-tree", "-r", "-z", "--name-only", "HEAD"]
    command += ["--", under] if under else []
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    names = listed.stdout.decode(errors="surrogateescape").split("\0")
    return [name for name in names if re.search(r"detail[^/]*\.txt$", name)]


def judge_all(git_dir: Path, paths: list[str]) -> list[Judged]:
    """The logs that the repository has."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            judge(Path(folder), path, detail, summary)
            for path, detail, summary in blobs(git_dir, paths)
        ]


def blobs(git_dir: Path, paths: list[str]) -> Iterator[tuple[str, bytes, bytes]]:
    """Each detail log, with its summary or nothing."""
    command = ["git", "--git-dir", str(git_dir), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as git:
        assert git.stdin is not None and git.stdout is not None
        for path in paths:
            detail = _blob(git.stdin, git.stdout, path)
            beside = mllog.companion(Path(path), "summary.txt")
            summary = _blob(git.stdin, git.stdout, str(beside))
            if detail is not None:
                yield path, detail, summary or b""


def _blob(asked: IO[bytes], answers: IO[bytes], path: str) -> bytes | None:
    asked.write(f"HEAD:{path}\n".encode(errors="surrogateescape"))
    asked.flush()
    head = answers.readline().split()
    if len(head) != 3 or head[1] != b"blob":
        return None
    content = answers.read(int(head[2]))
    answers.read(1)
    return content


def judge(folder: Path, path: str, detail: bytes, summary: bytes) -> Judged:
    (folder / mllog.FILE_NAME).write_bytes(detail)
    text = detail.decode(errors="replace")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = verdict.main([str(folder), "--json"])
    found, message, doubts = "traceback", err.getvalue(), ()
    if code in (EXIT_VALID, EXIT_INVALID):
        printed = json.loads(out.getvalue())
        found, message = printed["verdict"], ""
        doubts = tuple(doubt["code"] for doubt in printed["doubts"])
    elif code == EXIT_BAD_INPUT and "Traceback" not in message:
        found = "refused"
        message = message.replace(f"{folder}/", "").splitlines()[0]
    return Judged(
        path=path,
        mode=next(iter(_MODE.findall(text)), "unknown"),
        detail=next(iter(_DETAIL.findall(text)), ""),
        summary=next(iter(_SUMMARY.findall(summary.decode(errors="replace"))), ""),
        found=found,
        message=message,
        doubts=doubts,
    )


def report(judged: list[Judged], num_absent: int) -> Iterator[str]:
    yield f"{len(judged)} detail logs judged, {num_absent} listed and absent"
    yield "\nmode, LoadGen's log, its summary -> sut.verdict:"
    counts = Counter((each.mode, each.detail, each.summary, each.found) for each in judged)
    for (mode, detail, summary, found), num in counts.most_common():
        yield f"  {num:6}  {mode}, {detail or '-'}, {summary or '-'} -> {found}"
    yield "\nrefused:"
    refused = [each for each in judged if each.found == "refused"]
    yield from _grouped([(_NUMBER.sub("N", each.message), each.path) for each in refused])
    yield "\ndoubts:"
    yield from _grouped([(doubt, each.path) for each in judged for doubt in each.doubts])
    yield "\nproblems:"
    yield from _grouped([(each.problem, each.path) for each in judged if each.problem]) or [
        "  none"
    ]


def _grouped(pairs: list[tuple[str, str]]) -> list[str]:
    lines = []
    for what, num in Counter(what for what, _ in pairs).most_common():
        lines.append(f"  {num:6}  {what}")
        paths = [path for each, path in pairs if each == what]
        lines += [f"          {path}" for path in paths[:EXAMPLES]]
    return lines


if __name__ == "__main__":
    sys.exit(main())
