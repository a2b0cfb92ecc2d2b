"""The replicas of a run, served: the dispatcher and its engine processes, start to stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from sut import _core, wire
from sut.engine import Address, EngineProcess, Launch
from sut.errors import RunError
from sut.plan import EngineKind, Plan
from sut.progress import Progress
from sut.rundir import RunDir

NUM_WARMUP_SAMPLES = 16  # a replica; the first request after a start can take seconds
POLL_S = 0.25
EXIT_GRACE_S = 2.0  # between a lost connection and the exit code that explains it
LOG_LINES = 12


class Serving:
    """A context: engines started inside it are stopped when it ends, however it ends.

    Every wait in here has a deadline, and ends at once when an engine process exits.
    """

    def __init__(
        self, plan: Plan, run_dir: RunDir, prompts: Sequence[Sequence[int]], model_path: Path | None
    ) -> None:
        self.plan = plan
        self._run_dir = run_dir
        self._prompts = prompts
        self._model_path = model_path
        self._engines: list[EngineProcess] = []
        self._dispatcher: _core.Dispatcher | None = None

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._dispatcher is not None:
            self._dispatcher.close()
        for engine in self._engines:
            engine.stop(timeout_s=10.0)

    @property
    def dispatcher(self) -> _core.Dispatcher:
        assert self._dispatcher is not None, "load() comes first"
        return self._dispatcher

    def load(self, progress: Progress) -> None:
        """Start the engines, encode the requests while they load, and wait until all serve.

        Raises RunError: an engine exited, is of another version, or the time is over.
        """
        progress.step("starting the engines")
        if self.plan.engine.kind is EngineKind.VLLM:
            wire.check_installed()
        links = self._bind()
        deadline = time.monotonic() + self.plan.timeouts.ready_s
        for replica in self.plan.replicas:
            launch = Launch(
                replica=replica.index,
                part=0,
                handshake=Address(*links.handshake_address(replica.index)),
                host=self.plan.host,
            )
            self._engines.append(
                EngineProcess.start(self.plan, launch, self._model_path, self._run_dir)
            )
        progress.step("encoding the requests while the engines load")
        self._dispatcher = _core.Dispatcher(
            links,
            _store(self.plan, self._prompts, self._model_path),
            _core.WireLayout(**wire.layout(self.plan.engine.kind)),
            max_output_tokens=self.plan.generation.max_tokens,
            sample_deadline_s=self.plan.timeouts.sample_s,
            stall_deadline_s=self.plan.timeouts.stall_s,
        )
        self._wait_ready(progress, deadline)
        self._give_credit()

    def _bind(self) -> _core.ReplicaLinks:
        try:
            return _core.ReplicaLinks(host=self.plan.host, num_replicas=len(self.plan.replicas))
        except RuntimeError as error:
            raise RunError(
                f"{error}. The site's host must be an address of this machine: --set site.host=...",
                code="bind",
            ) from None

    def _wait_ready(self, progress: Progress, deadline: float) -> None:
        while not self.dispatcher.wait_ready(POLL_S):
            self.check()
            waiting = [
                r.index
                for r in self.plan.replicas
                if self.dispatcher.ready_response(r.index) is None
            ]
            progress.step(f"loading: waiting for replica {', '.join(map(str, waiting))}")
            if time.monotonic() > deadline:
                tail = self._engines[waiting[0]].tail(LOG_LINES)
                raise RunError(
                    f"replica {waiting[0]} was not ready after {self.plan.timeouts.ready_s:g} s. "
                    f"Its log, {self._run_dir.replica_log(waiting[0])}, ends:\n{tail}\n"
                    "If it only needs longer, give it more: --set site.timeouts.ready_s=...",
                    code="not_ready",
                    replica=waiting[0],
                )

    def _give_credit(self) -> None:
        """Each replica may hold what its scheduler can use."""
        for replica in self.plan.replicas:
            response = self.dispatcher.ready_response(replica.index)
            assert response is not None
            ready = wire.check_ready(response, self.plan)
            self.dispatcher.set_credit(replica.index, credit(int(ready["max_num_seqs"])))

    def warm_up(self) -> None:
        """Run some samples on every replica, outside LoadGen and untimed. Raises RunError."""
        samples = range(min(NUM_WARMUP_SAMPLES, len(self._prompts)))
        with ThreadPoolExecutor(len(self.plan.replicas)) as pool:
            runs = [
                pool.submit(self.dispatcher.generate, samples, r.index, self.plan.timeouts.warmup_s)
                for r in self.plan.replicas
            ]
            while not all(run.done() for run in runs):
                time.sleep(0.05)
                self._watch()
        self.check()
        for run in runs:
            run.result()

    def check(self) -> None:
        """Raise RunError if the dispatcher or an engine has failed."""
        self._watch()
        failure = self.dispatcher.failure
        if failure is not None:
            raise self._explained(failure)

    def _watch(self) -> None:
        """An engine that exits is a failure, whatever else is known."""
        for index, engine in enumerate(self._engines):
            if engine.poll() is not None:
                self.dispatcher.fail("engine_died", "", index)

    def _explained(self, failure: _core.Failure) -> RunError:
        """What the dispatcher saw, with the engine's own last words where it exited."""
        if failure.replica < 0:
            return RunError(failure.message, code=failure.code)
        engine = self._engines[failure.replica]
        log = self._run_dir.replica_log(failure.replica)
        deadline = time.monotonic() + EXIT_GRACE_S
        while engine.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        code, message = failure.code, failure.message
        status = engine.poll()
        if status is not None:
            code, message = "engine_died", f"replica {failure.replica} {_exit_text(status)}"
        return RunError(
            f"{message}. Its log, {log}, ends:\n{engine.tail(LOG_LINES)}",
            code=code,
            replica=failure.replica,
        )


def credit(max_num_seqs: int) -> int:
    """The most samples a replica may hold: what it can run, and a quarter more, so that
    a place that gets free is taken in the same step while a slow replica hoards nothing."""
    return max_num_seqs + max(1, max_num_seqs // 4)


def _store(
    plan: Plan, prompts: Sequence[Sequence[int]], model_path: Path | None
) -> _core.SampleStore:
    store = _core.SampleStore()
    encoded = wire.encode(plan, prompts, model_path)
    for (request, id_offset), prompt in zip(encoded, prompts, strict=True):
        store.add(request, id_offset, len(prompt))
    return store


def _exit_text(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"exited with code {status}"
