"""This node of a run: :class:`LocalNode`."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sut.machine import network
from sut.plan.plan import Plan
from sut.results.record import PreflightCheck
from sut.rundir import RunDir
from sut.serving import listening
from sut.serving.kept import Kept
from sut.serving.keys import EngineKeys
from sut.serving.messages import Report
from sut.serving.node_check import NodeCheck
from sut.serving.process import EngineProcess, Launch, PartId, command


class LocalNode:
    def __init__(
        self,
        plan: Plan,
        run_dir: RunDir,
        index: int,
        name: str,
        host: str,
        keys: Sequence[Sequence[EngineKeys]],
    ) -> None:
        """``keys`` are those of each replica of the run, by the number of its restart."""
        self.name = name
        self.host = host
        self._index = index
        self._plan = plan
        self._run_dir = run_dir
        self._keys = keys
        self._engines: dict[PartId, EngineProcess] = {}
        self._check: NodeCheck | None = None
        self.kept: Kept | None = None  # owns the engines in this node's place

    def start(self, launch: Launch, model_path: str | None) -> None:
        """Start an engine's process. Call from the main thread. Raises RunError."""
        part = (launch.replica, launch.part)
        report = self._run_dir.engine_report(*part)
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        path = None if model_path is None else Path(model_path)
        wanted = command(self._plan, launch, path, report)
        # Of a replica's ranks the first connects to the dispatcher.
        keys = self._keys[launch.replica][launch.restart] if launch.part == 0 else None
        if self.kept is not None:
            self.kept.start(part, wanted, self._plan.timeouts.ready_s)
            return
        if earlier := self._engines.pop(part, None):
            earlier.stop(time.monotonic())
        with self._run_dir.replica_log(*part).open("ab" if launch.restart else "wb") as output:
            if launch.restart:
                output.write(f"--- restart {launch.restart} ---\n".encode())
                output.flush()
            self._engines[part] = EngineProcess(wanted, output, launch.replica, keys)

    def kill(self, part: PartId) -> None:
        """Kill an engine's processes. Does not wait for their end."""
        if engine := self._engines.get(part):
            engine.kill()

    def engine_report(self, part: PartId) -> bytes:
        """What an engine's process reported of itself; empty if it did not. Read it on the node
        that wrote it: others may see a shared file late. Raises RunError."""
        warm = self.kept.granted if self.kept else None
        if warm is not None:
            return warm.served.reports[part[0]]
        try:
            return self._run_dir.engine_report(*part).read_bytes()
        except OSError:
            return b""

    def free_port(self) -> int:
        """Raises RunError."""
        return network.free_port(self.host)

    def exits(self) -> dict[PartId, int]:
        """The engines that exited, and their status; negative for a signal."""
        if self.kept is not None:
            return self.kept.exits()
        polled = {part: engine.poll() for part, engine in self._engines.items()}
        return {part: status for part, status in polled.items() if status is not None}

    def refresh(self) -> None:
        """Does nothing: :meth:`exits` asks each time."""

    def begin_check(self, model_path: str | None) -> None:
        path = None if model_path is None else Path(model_path)
        warm = self.kept.granted if self.kept else None
        self._check = NodeCheck(
            self._plan,
            self._run_dir,
            self._index,
            self.host,
            path,
            warm=() if warm is None else warm.sessions,
        )
        threading.Thread(target=self._check.run, daemon=True).start()

    def report(self) -> Report:
        """The state of the checks that :meth:`begin_check` started."""
        assert self._check is not None
        return Report(report=self._check.report, doing=self._check.doing)

    def listening(self) -> PreflightCheck:
        """The addresses that the run's processes on this node listen on, once the engines are
        loaded."""
        for engine in self._engines.values():
            engine.note_shared_memory()
        warm = self.kept.granted if self.kept else None
        return listening.check(() if warm is None else warm.sessions)

    def stop(self, grace_s: float) -> None:
        """Stop every engine, and kill those still running after ``grace_s``. Engines that were
        released for the next run stay."""
        if self.kept is not None:
            self.kept.stop(grace_s)
        for engine in self._engines.values():
            engine.terminate()
        deadline = time.monotonic() + grace_s
        for engine in self._engines.values():
            engine.stop(deadline)
