"""The owner of engines between runs: ``python -m sut.serving.keeper LISTENER HOLDER [FD...]``.

Started by a run, in its own session, with open file descriptors: a listening socket, a connection
to that run, and sockets that reserve the engines' ports. The engines are its children. It ends with
them when the run that holds them ends without releasing them, when an engine exits, after a time
without use, when asked to, and with the job that it belongs to.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

from sut.errors import RunError
from sut.results import attempts
from sut.rundir import RunDir
from sut.serving import registry
from sut.serving.channel import Channel, LostError
from sut.serving.keeper_messages import (
    REQUEST,
    SETUP,
    Acquire,
    Answer,
    Exits,
    GetExits,
    GetStatus,
    Granted,
    Release,
    Request,
    Setup,
    StartEngine,
    Status,
    Stop,
)
from sut.serving.messages import Done, Exit, Problem
from sut.serving.process import EngineProcess, PartId

GRACE_S = 5.0
CHUNK = 2**16
POLL_S = 0.02
MAX_WAIT_S = 3600.0  # epoll refuses 25 days


class EndError(Exception):
    """The keeper ends. ``asked_by`` waits for the engines' end, and then gets ``answer``."""

    def __init__(
        self,
        grace_s: float = GRACE_S,
        asked_by: Channel | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.grace_s = grace_s
        self.asked_by = asked_by
        self.answer = answer or Done()


def main() -> None:
    listener, holder, *_ = map(int, sys.argv[1:])
    _take_signals()
    Keeper(socket.socket(fileno=listener), Channel(socket.socket(fileno=holder))).run()


def _take_signals() -> None:
    def end(_number: int, _frame: FrameType | None) -> None:
        raise EndError

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends it near the wall limit, for the run


class _Engine:
    """An engine, and the log that its output goes to."""

    def __init__(self, process: EngineProcess, log: int) -> None:
        self.process = process
        self.log = log


class Keeper:
    def __init__(self, listener: socket.socket, holder: Channel) -> None:
        """Raises LostError where the run that started it is gone."""
        self._setup: Setup = holder.receive(SETUP)
        self._listener = listener
        self._holder: Channel | None = holder
        self._run_dir = RunDir(self._setup.run)
        self._keep_s = self._setup.keep_s
        self._deadline = float("inf")
        self._leaving = False  # ends with the run that holds it
        self._engines: dict[PartId, _Engine] = {}
        self._exits: dict[PartId, int] = {}
        self._ready: tuple[bytes, ...] = ()
        self._memory: dict[str, str] = {}
        self._samples = [0] * len(self._setup.ports)
        self._runs = 0
        self._started_utc = attempts.utc_now()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until the end. Every engine has ended then."""
        ending = EndError()
        try:
            self._watch_all()
            while True:
                self._serve_once()
        except EndError as error:
            ending = error
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            self._end(ending)

    def _watch_all(self) -> None:
        # Again: the peer's process id of a connection is that of the process which last called it.
        self._listener.listen()
        self._watch(self._listener.fileno(), self._accept)
        assert self._holder is not None
        self._watch_channel(self._holder)
        if self._setup.until_pid is not None:
            try:
                job = os.pidfd_open(self._setup.until_pid)
            except ProcessLookupError:
                raise EndError from None
            self._watch(job, self._raise_ending)

    def _serve_once(self) -> None:
        left_s = min(max(0.0, self._deadline - time.monotonic()), MAX_WAIT_S)
        for key, _ in self._selector.select(None if self._holder else left_s):
            key.data()
        if self._holder is None and time.monotonic() >= self._deadline:
            raise EndError

    def _watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def _watch_channel(self, channel: Channel) -> None:
        self._watch(channel.fileno(), lambda: self._serve(channel))

    def _raise_ending(self) -> None:
        raise EndError

    def _accept(self) -> None:
        connected, _ = self._listener.accept()
        registry.limit_silence(connected)
        self._watch_channel(Channel(connected))

    def _serve(self, channel: Channel) -> None:
        """Answer a request."""
        try:
            channel.send(self._answer(channel.receive(REQUEST), channel))
        except LostError:
            self._selector.unregister(channel.fileno())
            channel.close()
            if channel is self._holder:
                raise EndError from None

    def _answer(self, request: Request, channel: Channel) -> Answer:
        match request:
            case StartEngine():
                return self._start(request)
            case GetExits():
                exits = (Exit(part=part, status=status) for part, status in self._exits.items())
                return Exits(exits=tuple(exits))
            case Acquire():
                return self._acquire(request, channel)
            case Release():
                return self._release(request, channel)
            case GetStatus():
                return self._status()
            case Stop():
                return self._stop(request, channel)

    def _start(self, request: StartEngine) -> Answer:
        try:
            process = EngineProcess(request.command, subprocess.PIPE, replica=request.part[0])
        except RunError as error:
            return Problem(code=error.code, message=str(error))
        engine = _Engine(process, self._log(request.part))
        self._engines[request.part] = engine
        output = process.output.fileno()
        os.set_blocking(output, False)
        self._watch(output, lambda: self._copy_output(engine))
        ended = os.pidfd_open(process.pid)
        self._watch(ended, lambda: self._note_exit(request.part, ended))
        return Done()

    def _log(self, part: PartId) -> int:
        """The engine's log in the run that holds it, or the null device where it cannot be
        written."""
        path = self._run_dir.replica_log(*part)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, 0o644)
        except OSError:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def _copy_output(self, engine: _Engine) -> None:
        """Write what an engine printed to its log."""
        output = engine.process.output.fileno()
        with contextlib.suppress(BlockingIOError):
            while text := os.read(output, CHUNK):
                with contextlib.suppress(OSError):
                    os.write(engine.log, text)
            if output in self._selector.get_map():  # it has no writer any more
                self._selector.unregister(output)

    def _note_exit(self, part: PartId, ended: int) -> None:
        status = self._engines[part].process.poll()
        if status is None:
            return
        self._copy_output(self._engines[part])  # before the run that asks reads the log
        self._selector.unregister(ended)
        os.close(ended)
        self._exits[part] = status
        if self._holder is None:
            raise EndError

    def _acquire(self, request: Acquire, channel: Channel) -> Answer:
        if self._holder is not None:
            return Problem(code="in_use", message=f"in use by {self._run_dir}")
        self._holder, self._keep_s = channel, request.keep_s
        self._direct_output(RunDir(request.run))
        return Granted(
            started_utc=self._started_utc,
            runs=self._runs,
            samples=tuple(self._samples),
            ready=self._ready,
            ports=self._setup.ports,
            sessions=tuple(engine.process.pid for engine in self._engines.values()),
            memory=self._memory,
        )

    def _direct_output(self, run_dir: RunDir) -> None:
        before, self._run_dir = self._run_dir, run_dir
        for part, engine in self._engines.items():
            os.close(engine.log)
            engine.log = self._log(part)
            text = f"warm engine, started {self._started_utc}; earlier run: {before}\n"
            with contextlib.suppress(OSError):
                os.write(engine.log, text.encode())

    def _release(self, request: Release, channel: Channel) -> Answer:
        if channel is not self._holder:
            return Problem(code="not_held", message="only a run that holds engines releases them")
        self._holder = None
        self._started_utc = request.started_utc
        self._ready, self._memory = request.ready, request.memory
        self._samples = [a + b for a, b in zip(self._samples, request.samples, strict=True)]
        self._runs += 1
        if self._leaving or self._exits:
            ended = Problem(code="ended", message="the engines have ended")
            raise EndError(asked_by=channel, answer=ended)
        self._deadline = time.monotonic() + self._keep_s
        return Done()

    def _status(self) -> Status:
        held = self._holder is not None
        return Status(
            keeper=self._setup.keeper,
            what=self._setup.what,
            settings=self._setup.settings,
            resources=self._setup.resources,
            job_id=self._setup.job_id,
            started_utc=self._started_utc,
            runs=self._runs,
            samples=tuple(self._samples),
            run=str(self._run_dir) if held else "",
            ends_in_s=None if held else max(0.0, self._deadline - time.monotonic()),
        )

    def _stop(self, request: Stop, channel: Channel) -> Answer:
        if self._holder in (None, channel):
            raise EndError(request.grace_s, channel)
        self._leaving = True
        return Problem(code="in_use", message=f"in use by {self._run_dir}")

    def _end(self, ending: EndError) -> None:
        """End every engine, then leave the registry: who finds no keeper finds no engine."""
        for engine in self._engines.values():
            engine.process.terminate()
        deadline = time.monotonic() + ending.grace_s
        for engine in self._engines.values():
            while engine.process.lives() and time.monotonic() < deadline:
                self._copy_output(engine)  # an engine whose output nobody reads cannot end
                time.sleep(POLL_S)
            engine.process.stop(deadline)
            self._copy_output(engine)
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(registry.locked())
            with contextlib.suppress(OSError):
                registry.path_of(self._setup.keeper).unlink()
            # Before the lock is released: until then this keeper counts as alive.
            self._listener.close()
        if ending.asked_by is not None:
            with contextlib.suppress(LostError):
                ending.asked_by.send(ending.answer)


if __name__ == "__main__":
    main()
