"""This node of a run: :class:`LocalNode`."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from sut.machine import network
from sut.plan.plan import Plan
from sut.rundir import RunDir
from sut.serving.messages import Report
from sut.serving.node_check import NodeCheck
from sut.serving.process import EngineProcess, Launch, PartId


class LocalNode:
    def __init__(self, plan: Plan, run_dir: RunDir, index: int, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self._index = index
        self._plan = plan
        self._run_dir = run_dir
        self._engines: dict[PartId, EngineProcess] = {}
        self._check: NodeCheck | None = None

    def start(self, launch: Launch, model_path: str | None) -> None:
        """Start an engine's process. Call from the main thread. Raises RunError."""
        path = None if model_path is None else Path(model_path)
        engine = EngineProcess(self._plan, launch, path, self._run_dir)
        self._engines[launch.replica, launch.part] = engine

    def free_port(self) -> int:
        """Raises RunError."""
        return network.free_port(self.host)

    def exits(self) -> dict[PartId, int]:
        """The engines that exited, and their status; negative for a signal."""
        polled = {part: engine.poll() for part, engine in self._engines.items()}
        return {part: status for part, status in polled.items() if status is not None}

    def refresh(self) -> None:
        """Does nothing: :meth:`exits` is always current."""

    def begin_check(self, model_path: str | None) -> None:
        path = None if model_path is None else Path(model_path)
        self._check = NodeCheck(self._plan, self._run_dir, self._index, self.host, path)
        threading.Thread(target=self._check.run, daemon=True).start()

    def report(self) -> Report:
        """The state of the checks that :meth:`begin_check` started."""
        assert self._check is not None
        return Report(report=self._check.report, doing=self._check.doing)

    def stop(self, grace_s: float) -> None:
        """Stop every engine, and kill those still running after ``grace_s``."""
        for engine in self._engines.values():
            engine.terminate()
        deadline = time.monotonic() + grace_s
        for engine in self._engines.values():
            engine.stop(deadline)
