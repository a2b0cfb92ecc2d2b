"""A new run directory is complete or not there, and killed processes leave nothing for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cli import ROOT, environment
from plans import plan_of

from sut.launch import newrun

KILLED = """
import os, sys, pathlib
from plans import plan_of
from sut.launch import newrun
newrun.notices.write = lambda *_: os.kill(os.getpid(), 9)
newrun.create(plan_of("replay"), pathlib.Path(sys.argv[1]))
"""


def hidden(root: Path) -> list[Path]:
    return sorted(root.glob(".*"))


def test_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    both = f"{ROOT}:{ROOT / 'tests'}"
    for _ in range(2):
        made = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path)], env=environment(PYTHONPATH=both)
        )
        assert made.returncode == -signal.SIGKILL
    stale, fresh = hidden(tmp_path)
    link = tmp_path / ".latest-2026"
    link.symlink_to("nowhere")
    os.utime(stale, (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    run = newrun.create(plan_of("replay"), tmp_path)
    assert hidden(tmp_path) == [fresh]  # its process may live
    assert run.plan.is_file() and (tmp_path / "latest").resolve() == run.root
