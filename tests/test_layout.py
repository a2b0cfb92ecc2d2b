"""What commands print fits a terminal, and loses no word."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cli import ROOT
from handmade_logs import write
from loadgen_logs import smallest_valid, ten_queries
from records import PLAN, completed, performance
from rich.console import Console
from test_published import OPTIONS, values
from test_sweep import swept
from test_watch import phase_state, run_state

from sut import compare, layout, simulate, submit, verdict
from sut import list as list_command
from sut.history.__main__ import main as history
from sut.report.summary import summary
from sut.results import record
from sut.results.record import Failure, Record
from sut.rundir import RunDir
from sut.watch.frame import frame
from sut.watch.state import ReplicaState

WIDTHS = (60, 80, 120)
Printed = Callable[[int | None], str]


def words(text: str) -> set[str]:
    return {word.strip(",;:") for word in text.split()} - {""}


def assert_fits(text: str, width: int) -> None:
    """No line is wider than the terminal but that of one word, which cannot be broken."""
    for line in text.splitlines():
        assert len(line) <= width or len(line.split()) == 1, line


# The functions.


@pytest.mark.parametrize("width", [1, 10, 24, 40, 60, 80])
def test_a_table_of_any_width_has_every_cell(width: int) -> None:
    head = ("run", "tokens/s", "why")
    rows = [("night-1", "1,000", "TTFT p99 was too high by far"), ("x" * 70, "9", "")]
    shown = "\n".join(layout.columns(head, rows, (1,), width))
    assert {word for row in rows for cell in row for word in cell.split()} <= words(shown)
    if width >= 24:
        assert_fits(shown, width)


def test_wraps_the_last_column_before_it_breaks_the_table() -> None:
    rows = [("met", "min_duration", "The test ran 600 s; at least 600 s needed.")]
    assert layout.columns((), rows, (), 50) == [
        "met  min_duration  The test ran 600 s; at least",
        "                   600 s needed.",
    ]


def test_a_figure_stays_beside_its_unit() -> None:
    assert layout.wrap("at most 1,000 ms now", 14) == ["at most", "1,000 ms now"]
    assert layout.wrap("2 replicas of 4 are", 10) == ["2 replicas", "of 4 are"]


def test_a_table_too_wide_is_a_paragraph_a_row() -> None:
    head, rows = ("key", "type", "limit", "meaning"), [("a.b", "text", "1", "LoadGen's key")]
    assert layout.columns(head, rows, (), 20) == [
        "a.b",
        "    type text,",
        "    limit 1",
        "    meaning:",
        "    LoadGen's key",
    ]
    shown = layout.columns(("replica", "KV"), [("0", "87%")], (0, 1), 11)
    assert shown == ["replica 0", "    KV 87%"]


def test_keeps_a_name_and_its_figure_together() -> None:
    text = ", ".join(map(layout.together, ("p50 12 ms", "p99 20 ms", "limit 100 ms")))
    assert layout.wrap(text, 24, "  ", "  ") == ["  p50 12 ms, p99 20 ms,", "  limit 100 ms"]
    assert layout.wrap(text, None) == ["p50 12 ms, p99 20 ms, limit 100 ms"]


def test_only_a_terminal_has_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert layout.terminal_width(io.StringIO()) is None
    head, tail = pty.openpty()
    with os.fdopen(head), os.fdopen(tail, "w") as terminal:
        assert layout.terminal_width(terminal) == 60


# The commands.


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs of all kinds."""
    short = performance(smallest_valid())
    stopped = Failure(
        code="engine_died", message="replica 0 died\nhint: less /runs/x/replica-0.log"
    )
    found = {
        "night-1": completed(short),
        "night-2": completed(short, plan=msgspec.structs.replace(PLAN, repeat=2)),
        "night-3": completed(performance(ten_queries())),
        "night-4": completed(status="failed", exit_code=3, verdict=None, failure=stopped),
    }
    for day, (name, made) in enumerate(found.items(), start=1):
        run = RunDir(tmp_path / "runs" / name)
        created = f"2026-11-{day:02}T02:00:00Z"
        record.write(msgspec.structs.replace(made, run_id=name, created_utc=created), run)
        run.plan.write_bytes(msgspec.json.encode(made.plan))
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    "verdict": lambda: verdict.main([str(ten_queries())]),
    "compare": lambda: compare.main(["night-1", "night-3"]),
    "compare with history": lambda: compare.main(["night-3"]),
    "simulate": lambda: simulate.main(["--gpu", "a30", "--replicas", "1,2", "--target-qps", "1"]),
    "dry run": lambda: submit.main(["--config", "replay", "--dry-run"]),
    "list": lambda: list_command.main(["benchmarks"]),
    "list keys": lambda: list_command.main(["keys"]),
    "history": lambda: history([]),
}


# What a narrow list leaves out: the name of the first column, and what the folder's name has.
LEFT_OUT = {
    "list": {"benchmark"},
    "list keys": {"key"},
    "history": {"verdict", "benchmark", "scenario", "preset", "run"}
    | {"smollm2-135m-news", "server", "quick"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_output_fits_the_terminal(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(width: int | None) -> str:
        monkeypatch.setattr(layout, "terminal_width", lambda stream=None: width)
        COMMANDS[name]()
        return capsys.readouterr().out

    whole = words(printed(None))
    for width in WIDTHS:
        shown = printed(width)
        # The commands at the end of a dry run are never wrapped.
        page, _, _ = shown.partition("\nstart  ")
        assert_fits(page, width)
        assert whole - LEFT_OUT.get(name, set()) <= words(shown)


def test_a_pipe_does_not_follow_the_terminal(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(columns: str) -> str:
        monkeypatch.setenv("COLUMNS", columns)
        for run in COMMANDS.values():
            run()
        return capsys.readouterr().out

    assert printed("60") == printed("200")


def test_a_command_reads_the_width_of_its_terminal(root: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 60, 0, 0))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
        environment.pop("COLUMNS", None)
        words = [sys.executable, "-m", "sut.verdict", str(smallest_valid())]
        os.execve(sys.executable, words, environment)
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.waitpid(pid, 0)
    text = shown.decode().replace("\r", "")
    assert "VALID" in text and max(map(len, text.splitlines())) > 50
    assert_fits(text, 60)


def test_a_published_ranking_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, values(40_000.0))
    for width in WIDTHS:
        monkeypatch.setattr(layout, "terminal_width", lambda stream=None, width=width: width)
        verdict.main([str(tmp_path), *OPTIONS])
        shown = capsys.readouterr().out
        assert "rank" in shown
        assert_fits(shown, width)


SUMMARIES = {
    "valid": completed(performance(smallest_valid())),
    "invalid": completed(performance(ten_queries())),
    "sweep": swept((2, "VALID"), (4, "VALID"), (8, "INVALID")),
    "failed": completed(
        status="failed",
        exit_code=3,
        verdict=None,
        failure=Failure(
            code="engine_died", message="it died with exit code 1\na line of its log\nhint: less x"
        ),
    ),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_fits_the_terminal(name: str) -> None:
    made: Record = SUMMARIES[name]
    whole = summary(made, RunDir("/runs/night-1"))
    for width in WIDTHS:
        shown = summary(made, RunDir("/runs/night-1"), width=width)
        assert_fits(shown, width)
        assert words(whole) <= words(shown)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_frame_fits_the_terminal(width: int) -> None:
    replicas = tuple(
        ReplicaState(
            index=index,
            node="jw2.cluster",
            in_flight=160,
            running=128,
            waiting=32,
            kv_cache_usage=0.87,
            samples=123_456,
            prompt_tokens_per_s=12_345.0,
            output_tokens_per_s=23_456.0,
        )
        for index in range(2)
    )
    phase = phase_state("running", "INVALID")
    projection = msgspec.structs.replace(phase.projection, num_samples=123_456)
    phase = msgspec.structs.replace(
        phase, replicas=replicas, completed=12_345, projection=projection
    )
    out = io.StringIO()
    Console(file=out, width=width).print(frame(run_state(phases=(phase,))))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    shown = words(out.getvalue())
    assert {"12,345", "123,456", "will", "be", "INVALID"} <= shown
    assert {"jw2.cluster", "123,456", "160", "128", "32", "87%", "23,456", "tokens/s"} <= shown
    assert not any("…" in line for line in lines)
