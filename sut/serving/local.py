"""A node of a run as it is to itself: its engines, and what it is like."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from sut.machine import network
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.serving.messages import Report
from sut.serving.node_check import NodeCheck, NodeReport
from sut.serving.process import EngineProcess, Launch, PartId


class LocalNode:
    """This node: its engines, and what it is like."""

    def __init__(self, plan: Plan, run_dir: RunDir, index: int, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self._index = index
        self._plan = plan
        self._run_dir = run_dir
        self._engines: dict[PartId, EngineProcess] = {}
        self._check: NodeCheck | None = None
        self._report: NodeReport | None = None

    def check(self) -> None:
        """Nothing: this node is not lost to itself."""

    def start(self, launch: Launch, model_path: str | None) -> None:
        """Start an engine's process. Call from the main thread. Raises RunError."""
        path = None if model_path is None else Path(model_path)
        engine = EngineProcess.start(self._plan, launch, path, self._run_dir)
        self._engines[launch.replica, launch.part] = engine

    def free_port(self) -> int:
        """Raises RunError."""
        return network.free_port(self.host)

    def exits(self) -> dict[PartId, int]:
        """Which engines are over, and how they ended; negative for a signal."""
        polled = {part: engine.poll() for part, engine in self._engines.items()}
        return {part: status for part, status in polled.items() if status is not None}

    def refresh(self) -> None:
        """Nothing: what is told is always new."""

    def begin_check(self, model_path: str | None) -> None:
        """Begin to look at this node, on a thread of its own."""
        path = None if model_path is None else Path(model_path)
        self._check = NodeCheck(self._plan, self._run_dir, self._index, self.host, path)
        threading.Thread(target=self._look, args=[self._check], daemon=True).start()

    def _look(self, check: NodeCheck) -> None:
        self._report = check.run()

    def report(self) -> Report:
        """What :meth:`begin_check` has come to."""
        assert self._check is not None
        return Report(report=self._report, doing=self._check.doing)

    def stop(self, grace_s: float) -> None:
        """End every engine, and kill what still runs after ``grace_s``."""
        for engine in self._engines.values():
            engine.terminate()
        deadline = time.monotonic() + grace_s
        for engine in self._engines.values():
            engine.stop(deadline)
