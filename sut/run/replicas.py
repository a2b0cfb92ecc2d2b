"""Serves the replicas of a run: the dispatcher, and engines on the run's nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sut import _core
from sut.errors import CANCELLED, NODE_LOST, TRUNCATED, RunError
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan, Replica
from sut.results import attempts, record
from sut.results.progress import Progress
from sut.run.failures import EXIT_GRACE_S, explained, log_tail
from sut.rundir import RunDir
from sut.serving import requests, wire
from sut.serving.keeper_messages import Granted
from sut.serving.kept import Kept
from sut.serving.nodes import Nodes
from sut.serving.process import Address, Launch
from sut.serving.wire import Encoded, Layout

NUM_WARMUP_SAMPLES = 16  # a replica; the first request after a start can take seconds
RECONNECT_S = 5.0  # for a warm engine; it tries ten times a second
PROBE_S = 30.0  # for a warm engine's first sample
POLL_S = 0.25
ENDED_FROM_OUTSIDE = (CANCELLED, TRUNCATED, NODE_LOST)


class Serving:
    """A context that closes the dispatcher at its end. The nodes stop the engines.

    Every wait here has a deadline, and ends at once when an engine exits or a node is lost.
    """

    def __init__(
        self,
        plan: Plan,
        run_dir: RunDir,
        nodes: Nodes,
        model_path: Path | None,
    ) -> None:
        self.plan = plan
        self._run_dir = run_dir
        self.nodes = nodes
        self.model_path = model_path
        self._links: _core.ReplicaLinks | None = None  # to engines that this run started
        self._started = 0.0
        self._started_utc = ""
        self._num_samples = 0
        self._layout: Layout = {}
        self._store: _core.SampleStore | None = None
        self._dispatcher: _core.Dispatcher | None = None
        self.notes: tuple[str, ...] = ()  # why the engines are those that they are
        self.warm: Granted | None = None  # the engines were started by an earlier run
        self.kept = False  # they stay for the next run

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._dispatcher is not None:
            self._dispatcher.close()
            if kind is None and self.nodes.kept is not None and self._is_idle():
                self.kept = self._release(self.nodes.kept)

    def _release(self, kept: Kept) -> bool:
        """Leave the engines to the next run; whether they stay."""
        started_utc = self.warm.started_utc if self.warm else self._started_utc
        ready, num_sent = self._ready_responses(), self._num_sent()
        # Without them the sockets are closed, and the next run can bind their ports.
        self._links = self._dispatcher = None
        return kept.release(started_utc, ready, num_sent)

    def _is_idle(self) -> bool:
        """Whether the engines have completed all that they were sent."""
        stats = self.dispatcher.stats()
        return self.dispatcher.failure is None and stats.issued == stats.completed

    def _ready_responses(self) -> list[bytes]:
        found = [self.dispatcher.ready_response(r.index) for r in self.plan.replicas]
        return [response for response in found if response is not None]

    def _num_sent(self) -> list[int]:
        return [self.dispatcher.num_sent(replica.index) for replica in self.plan.replicas]

    @property
    def dispatcher(self) -> _core.Dispatcher:
        assert self._dispatcher is not None, "connect() comes first"
        return self._dispatcher

    def start(self, progress: Progress) -> None:
        """Start the engines' processes, and return at once. Warm engines run already. Raises
        RunError."""
        kept = self.nodes.kept
        if kept is None or kept.granted is None:
            self._links = self._start_all(progress)

    def connect(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        progress: Progress,
    ) -> None:
        """Encode the requests, and connect to the engines, which read the model from then on.
        ``answers`` are those of replay engines; see :func:`sut.serving.wire.encode`."""
        progress.step("encoding the requests while the engines start")
        encoded = requests.load(self.plan, prompts, self.model_path, answers)
        self._layout, self._store = encoded.layout, _store(encoded, prompts)
        self._num_samples = len(prompts)
        if self._links is not None:
            self._dispatch(self._links)

    def load(self, progress: Progress) -> None:
        """Wait until all engines are ready. Raises RunError when one exits, has another version, or
        is not ready in time."""
        if self._continue_with_warm(progress):
            return
        if self._links is None:  # the warm engines failed
            self._dispatch(self._start_all(progress))
        self._wait_ready(progress, self._started, self.plan.timeouts.ready_s)
        self._give_credit()

    def _dispatch(self, links: _core.ReplicaLinks) -> None:
        """Create the dispatcher for ``links``."""
        assert self._store is not None, "connect() comes first"
        before = self.warm.samples if self.warm else ()
        self._dispatcher = _core.Dispatcher(
            links,
            self._store,
            _core.WireLayout(**self._layout),
            max_output_tokens=self.plan.generation.max_tokens,
            sample_deadline_s=self.plan.timeouts.sample_s,
            stall_deadline_s=self.plan.timeouts.stall_s,
            first_use=(1 + sum(before)) % 2**32,
        )

    def _continue_with_warm(self, progress: Progress) -> bool:
        """Connect to the engines of an earlier run, and let each replica answer a sample. Where one
        does not, those engines are ended, and this run starts its own."""
        kept = self.nodes.kept
        if kept is None or kept.granted is None:
            return False
        self.warm = kept.granted
        progress.step(f"connecting to warm engines {kept.keeper}")
        try:
            links = self._bind()
            for replica, response in zip(self.plan.replicas, self.warm.ready, strict=True):
                links.adopt(replica.index, response)
            self._dispatch(links)
            self._wait_ready(progress, time.monotonic(), RECONNECT_S)
            self._give_credit()
            self._generate(1, PROBE_S)
        except RunError as error:
            if error.code in ENDED_FROM_OUTSIDE:
                raise
            self._drop_warm(str(error))
            return False
        return True

    def _drop_warm(self, reason: str) -> None:
        kept = self.nodes.kept
        assert kept is not None
        if self._dispatcher is not None:
            self._dispatcher.close()
        kept.stop(EXIT_GRACE_S)
        first, *_ = reason.splitlines()
        self.notes += (
            f"own engines, which end with this run (warm engines {kept.keeper} failed: {first})",
        )
        self.nodes.kept = self.warm = None

    @property
    def engines(self) -> record.Engines:
        """Where each replica's engine came from."""
        kept, warm = self.nodes.kept, self.warm
        return record.Engines(
            replicas=tuple(
                record.EngineOrigin(
                    replica=replica.index,
                    warm=warm is not None,
                    started_utc=warm.started_utc if warm else self._started_utc,
                    earlier_runs=warm.runs if warm else 0,
                    earlier_samples=warm.samples[replica.index] if warm else 0,
                )
                for replica in self.plan.replicas
            ),
            keeper=kept.keeper if kept else "",
            kept=self.kept,
            notes=self.notes,
        )

    def _bind(self) -> _core.ReplicaLinks:
        try:
            return _core.ReplicaLinks(
                host=self.nodes[0].host,
                num_replicas=len(self.plan.replicas),
                ports=self.nodes.kept.ports if self.nodes.kept else (),
            )
        except RuntimeError as error:
            raise RunError(
                str(error),
                hint="set the site's host to an address of this machine: --set site.host=ADDRESS",
                code="bind",
            ) from None

    def _start_all(self, progress: Progress) -> _core.ReplicaLinks:
        progress.step("starting the engines")
        links = self._bind()
        self._started = time.monotonic()
        for replica in self.plan.replicas:
            self._start(replica, Address(*links.handshake_address(replica.index)))
        self._started_utc = attempts.utc_now()
        return links

    def _start(self, replica: Replica, handshake: Address) -> None:
        """Start a replica's engine: one process on each of its nodes."""
        rendezvous = None
        # The replay engine models all ranks in one process.
        replay = self.plan.engine.kind is EngineKind.REPLAY
        parts = replica.parts[:1] if replay else replica.parts
        if len(parts) > 1:
            first = self.nodes[parts[0].node]
            rendezvous = Address(first.host, first.free_port())
        for index, part in enumerate(parts):
            node = self.nodes[part.node]
            launch = Launch(
                replica=replica.index,
                part=index,
                handshake=handshake,
                rendezvous=rendezvous,
                host=node.host,
                kept=self.nodes.kept is not None,
            )
            node.start(launch, None if self.model_path is None else str(self.model_path))

    def _wait_ready(self, progress: Progress, started: float, within_s: float) -> None:
        while not self.dispatcher.wait_ready(POLL_S):
            self.check()
            waiting = [
                r.index
                for r in self.plan.replicas
                if self.dispatcher.ready_response(r.index) is None
            ]
            if not waiting:  # the last became ready meanwhile
                continue
            progress.step(f"loading: waiting for replica {', '.join(map(str, waiting))}")
            if time.monotonic() > started + within_s:
                raise RunError(
                    f"replica {waiting[0]} was not ready after {within_s:g} s; "
                    f"{log_tail(self._run_dir, (waiting[0], 0))}",
                    hint="if it only needs more time: --set site.timeouts.ready_s=SECONDS",
                    code="not_ready",
                    replica=waiting[0],
                )

    def _give_credit(self) -> None:
        """Limit the samples in flight on each replica to what its scheduler can use."""
        for replica in self.plan.replicas:
            response = self.dispatcher.ready_response(replica.index)
            assert response is not None
            ready = wire.check_ready(response, self.plan)
            self.dispatcher.set_credit(replica.index, credit(int(ready["max_num_seqs"])))

    def warm_up(self) -> None:
        """Run some samples on every replica, outside LoadGen and untimed. Raises RunError. Warm
        engines have had theirs in :meth:`load`."""
        if self.warm is None:
            self._generate(NUM_WARMUP_SAMPLES, self.plan.timeouts.warmup_s)

    def _generate(self, num_samples: int, timeout_s: float) -> None:
        """Run samples on every replica, and wait for their answers. Raises RunError."""
        samples = range(min(num_samples, self._num_samples))
        with ThreadPoolExecutor(len(self.plan.replicas)) as pool:
            runs = [
                pool.submit(self.dispatcher.generate, samples, r.index, timeout_s)
                for r in self.plan.replicas
            ]
            try:
                while not all(run.done() for run in runs):
                    time.sleep(0.05)
                    self._watch()
            except BaseException as error:
                # Without this the pool waits for the samples.
                self.dispatcher.fail("interrupted", str(error))
                raise
        self.check()
        for run in runs:
            run.result()

    def check(self) -> None:
        """Raise RunError if the dispatcher, an engine or a node has failed."""
        self._watch()
        failure = self.dispatcher.failure
        if failure is not None:
            raise explained(failure, self.plan, self._run_dir, self.nodes)

    def _watch(self) -> None:
        """Report engines that exited to the dispatcher. Raises RunError for a lost node."""
        self.nodes.check()
        for replica, _ in self.nodes.exits():
            self.dispatcher.fail("engine_died", "", replica)


def _store(encoded: Encoded, prompts: Sequence[Sequence[int]]) -> _core.SampleStore:
    store = _core.SampleStore()
    for (request, id_offset), prompt in zip(encoded.requests, prompts, strict=True):
        store.add(request, id_offset, len(prompt))
    return store


def credit(max_num_seqs: int) -> int:
    """The most samples in flight on a replica: what it can run and a quarter more. A freed place is
    then filled in the same step, and a slow replica does not collect samples."""
    return max_num_seqs + max(1, max_num_seqs // 4)
