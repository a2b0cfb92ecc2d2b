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
import sys
import time
from collections.abc import Callable
from types import FrameType

from sut.errors import RunError
from sut.results import attempts
from sut.rundir import RunDir
from sut.serving import ended, registry
from sut.serving.channel import Channel, LostError
from sut.serving.ended import Ended
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
    Served,
    Setup,
    StartEngine,
    Status,
    Stop,
)
from sut.serving.kept_engine import KeptEngine
from sut.serving.messages import Done, Exit, Problem
from sut.serving.process import PartId

GRACE_S = 5.0
POLL_S = 0.02
MAX_WAIT_S = 3600.0  # epoll refuses 25 days
JOB_ENDED = "the job that started them ended"


class EndError(Exception):
    """The keeper ends, and why. ``asked_by`` waits for the engines' end, and then gets
    ``answer``."""

    def __init__(
        self,
        why: str,
        grace_s: float = GRACE_S,
        asked_by: Channel | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.why = why
        self.grace_s = grace_s
        self.asked_by = asked_by
        self.answer = answer or Done()


def main() -> None:
    listener, holder, *_ = map(int, sys.argv[1:])
    _take_signals()
    Keeper(socket.socket(fileno=listener), Channel(socket.socket(fileno=holder))).run()


def _take_signals() -> None:
    def end(number: int, _frame: FrameType | None) -> None:
        raise EndError(f"it received {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends it near the wall limit, for the run


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
        self._engines: list[KeptEngine] = []
        self._exits: dict[PartId, int] = {}
        self._served = Served(started_utc=attempts.utc_now(), samples=(0,) * len(self._setup.ports))
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until the end. Every engine has ended then."""
        ending = EndError("of an error")
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
                raise EndError(JOB_ENDED) from None
            self._watch(job, self._raise_ending)

    def _serve_once(self) -> None:
        left_s = min(max(0.0, self._deadline - time.monotonic()), MAX_WAIT_S)
        for key, _ in self._selector.select(None if self._holder else left_s):
            key.data()
        if self._holder is None and time.monotonic() >= self._deadline:
            raise EndError(f"no run used the engines for {self._keep_s / 60:g} minutes")

    def _watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def _watch_channel(self, channel: Channel) -> None:
        self._watch(channel.fileno(), lambda: self._serve(channel))

    def _raise_ending(self) -> None:
        raise EndError(JOB_ENDED)

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
                raise EndError(f"run {self._run_dir} ended without releasing them") from None

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
        replica, part = request.part
        keys = self._setup.keys.engines[replica] if part == 0 else None
        try:
            log = self._run_dir.replica_log(replica, part)
            engine = KeptEngine(request.part, request.command, log, keys)
        except RunError as error:
            return Problem(code=error.code, message=str(error))
        self._engines.append(engine)
        self._watch(engine.output, lambda: self._copy_output(engine))
        self._watch(engine.ended, lambda: self._note_exit(engine))
        return Done()

    def _copy_output(self, engine: KeptEngine) -> None:
        if not engine.copy_output():
            self._selector.unregister(engine.output)

    def _note_exit(self, engine: KeptEngine) -> None:
        status = engine.process.poll()
        if status is None:
            return
        engine.copy_output()  # before the run that asks reads the log
        self._selector.unregister(engine.ended)
        self._exits[engine.part] = status
        if self._holder is None:
            raise EndError("an engine exited")

    def _acquire(self, request: Acquire, channel: Channel) -> Answer:
        if self._holder is not None:
            return self._in_use()
        before, self._run_dir = self._run_dir, RunDir(request.run)
        self._holder, self._keep_s = channel, request.keep_s
        for engine in self._engines:
            line = f"warm engine, started {self._served.started_utc}; earlier run: {before}"
            engine.log_to(self._run_dir.replica_log(*engine.part), line)
        return Granted(
            served=self._served,
            ports=self._setup.ports,
            keys=self._setup.keys,
            sessions=tuple(engine.process.pid for engine in self._engines),
        )

    def _release(self, request: Release, channel: Channel) -> Answer:
        if channel is not self._holder:
            return Problem(code="not_held", message="only a run that holds engines releases them")
        self._holder, self._served = None, request.served
        if self._leaving or self._exits:
            ended = Problem(code="ended", message="the engines have ended")
            why = "an engine exited" if self._exits else "it was asked to stop after the run"
            raise EndError(why, asked_by=channel, answer=ended)
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
            started_utc=self._served.started_utc,
            runs=self._served.runs,
            samples=self._served.samples,
            run=str(self._run_dir) if held else "",
            ends_in_s=None if held else max(0.0, self._deadline - time.monotonic()),
        )

    def _stop(self, request: Stop, channel: Channel) -> Answer:
        if self._holder in (None, channel):
            raise EndError(request.why, request.grace_s, channel)
        self._leaving = True
        return self._in_use()

    def _in_use(self) -> Problem:
        return Problem(code="in_use", message=f"in use by {self._run_dir}")

    def _end(self, ending: EndError) -> None:
        """End every engine, then leave the registry: who finds no keeper finds no engine."""
        with contextlib.suppress(OSError):  # to keeper.log
            print(f"{attempts.utc_now()} the engines end: {ending.why}", flush=True)
        for engine in self._engines:
            engine.process.terminate()
        deadline = time.monotonic() + ending.grace_s
        for engine in self._engines:
            while engine.process.lives() and time.monotonic() < deadline:
                engine.copy_output()  # an engine whose output nobody reads cannot end
                time.sleep(POLL_S)
            engine.process.stop(deadline)
            engine.copy_output()
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(registry.locked())
                ended.note(
                    Ended(
                        keeper=self._setup.keeper,
                        what=self._setup.what,
                        ended_utc=attempts.utc_now(),
                        why=ending.why,
                    )
                )
            with contextlib.suppress(OSError):
                registry.path_of(self._setup.keeper).unlink()
            # Before the lock is released: until then this keeper counts as alive.
            self._listener.close()
        if ending.asked_by is not None:
            with contextlib.suppress(LostError):
                ending.asked_by.send(ending.answer)


if __name__ == "__main__":
    main()
