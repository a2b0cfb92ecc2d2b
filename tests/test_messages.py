"""Errors, hints and warnings: they fit a terminal, and are whole lines elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from sut import messages

ROOT = Path(__file__).parents[1]


def on_terminal(text: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    head, tail = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(columns))
    with os.fdopen(head, "rb", buffering=0) as shown, os.fdopen(tail, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        messages.report(text)
        return shown.read(65536).decode().splitlines()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "error: no such file or folder (runs/one): nothing here",
            ["error: no such file or folder", "       (runs/one): nothing here"],
        ),
        (
            "warning: 12 GPUs of the node are in use by others",
            ["warning: 12 GPUs of the node are in", "         use by others"],
        ),
        (
            "hint: leave out this combination or choose another",
            ["hint: leave out this combination or", "      choose another"],
        ),
        ("error: short", ["error: short"]),
        ("  a line of a log, which is printed as it is  there", None),
        ("error: not drawn; to draw them: python -m sut.report runs/one", None),
        ("error: not drawn; to draw them: sut report runs/one --only-html", None),
        ("hint: python -m sut.submit --config replay --again", None),
        ("hint: build it, or run it: python -m sut.submit --again", None),
        ("hint: sut engines stop ID, or to end all of them that", None),
        ("hint: give more memory, or --set engine.max_model_len", None),
        ("hint: less /runs/one/replica-0.log and the one after", None),
        ("hint: export CUDA_VISIBLE_DEVICES=0,1 and then try again", None),
    ],
)
def test_only_prose_is_wrapped(
    text: str, lines: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines is not None or len(text) > 36
    assert on_terminal(text, 36, monkeypatch) == (lines or [text])


def test_each_line_is_wrapped_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "error: one two three four\n  log  of  an  engine,  whole\nerror: five six seven eight"
    assert on_terminal(text, 20, monkeypatch) == [
        "error: one two three",
        "       four",
        "  log  of  an  engine,  whole",
        "error: five six",
        "       seven eight",
    ]


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    text = "error: one two three four  five\xa0six \nhint: seven eight nine ten eleven"
    messages.report(text)
    assert sys.stderr.getvalue() == f"{text}\n"


def run(*words: str, terminal_columns: int | None) -> list[str]:
    """The lines of standard error of a command whose standard output is a pipe."""
    command = [sys.executable, "-m", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("COLUMNS", None)
    if terminal_columns is None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr.splitlines()
    head, tail = pty.openpty()
    fcntl.ioctl(tail, termios.TIOCSWINSZ, struct.pack("HHHH", 50, terminal_columns, 0, 0))
    started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=tail)
    os.close(tail)
    shown = b""
    with os.fdopen(head, "rb", buffering=0) as reader, contextlib.suppress(OSError):
        while part := reader.read(65536):  # OSError: the other end is closed
            shown += part
    started.communicate()
    assert started.returncode == 2
    return shown.decode().splitlines()


@pytest.mark.parametrize(
    "words",
    [
        ("sut.simulate", "--gpu", "a30", "--set", "engine.tensor_parallel_size=2"),  # a SutError
        ("sut.simulate", "--gpu", "a30", "--from", "latest", "--json"),  # of argparse
        ("sut", "no-such-command-of-this-program-at-all"),
        ("sut.validate", "a-folder-that-is-not-there/with-a-benchmark-in-it.yaml"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_wraps_its_errors(words: tuple[str, ...]) -> None:
    whole = run(*words, terminal_columns=None)
    shown = run(*words, terminal_columns=44)
    assert whole[0].startswith("error: ") and len(whole[0]) > 44
    commands = [line for line in whole if line.startswith("hint: ") and ": " in line[6:]]
    assert set(commands) <= set(shown)
    longest_word = max(map(len, " ".join(whole).split()))
    assert all(len(line) <= max(44, 7 + longest_word) for line in shown if line not in commands)
    assert len(shown) > len(whole)
    assert " ".join(" ".join(shown).split()) == " ".join(" ".join(whole).split())
