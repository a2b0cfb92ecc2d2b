"""The engines that serve a run, its own or warm ones of an earlier run: started, connected, left to
the next run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sut import _core
from sut.errors import CANCELLED, NODE_LOST, TRUNCATED, RunError
from sut.results import attempts, engine_report, record
from sut.results.engine_report import EngineReport
from sut.results.progress import Progress
from sut.run import sockets
from sut.run.failures import EXIT_GRACE_S
from sut.run.replicas import NUM_WARMUP_SAMPLES, Replicas
from sut.serving import requests
from sut.serving.keeper_messages import Served
from sut.serving.kept import Kept
from sut.serving.nodes import Nodes
from sut.serving.process import Address, PartId
from sut.serving.wire import Encoded

RECONNECT_S = 5.0  # for a warm engine; it tries ten times a second
PROBE_S = 30.0  # for a warm engine's first sample
ENDED_FROM_OUTSIDE = (CANCELLED, TRUNCATED, NODE_LOST)


class Serving:
    """A context that closes the dispatcher at its end, and releases engines that are to stay. The
    nodes stop all others."""

    def __init__(self, nodes: Nodes, model_path: Path | None, notes: tuple[str, ...] = ()) -> None:
        """``notes`` are on the engines, for people."""
        self.nodes = nodes
        self.plan = nodes.plan
        self.model_path = model_path
        granted = nodes.kept.granted if nodes.kept else None
        self.warm = granted is not None  # the engines were started by an earlier run
        self._before = granted.served if granted else Served()
        self._notes = notes
        self._kept = False  # they stay for the next run
        self._refused = 0
        self.reports: tuple[EngineReport, ...] = ()  # see load()
        self._started = 0.0
        self._reports: dict[PartId, bytes] = {}  # what each engine reports of itself
        self._links: _core.ReplicaLinks | None = None
        self._replicas: Replicas | None = None

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._replicas is not None:
            self._replicas.close()
            self._refused = self._replicas.num_refused
            if kind is None and self.nodes.kept is not None and self._replicas.is_idle:
                self._kept = self._release(self.nodes.kept)

    @property
    def replicas(self) -> Replicas:
        assert self._replicas is not None, "connect() comes first"
        return self._replicas

    @property
    def engines(self) -> record.Engines:
        """Where each replica's engine came from."""
        kept, before = self.nodes.kept, self._before
        return record.Engines(
            replicas=tuple(
                record.EngineOrigin(
                    replica=replica.index,
                    warm=self.warm,
                    started_utc=before.started_utc,
                    earlier_runs=before.runs,
                    earlier_samples=before.samples[replica.index] if self.warm else 0,
                )
                for replica in self.plan.replicas
            ),
            keeper=kept.keeper if kept else "",
            kept=self._kept,
            notes=self._notes,
            refused_connections=self._refused,
        )

    def start(self, progress: Progress) -> None:
        """Start the engines' processes, and return at once. Warm engines run already. Raises
        RunError."""
        if self.warm:
            return
        progress.step("starting the engines")
        self._links = self._bind()
        self._started = time.monotonic()
        for replica in self.plan.replicas:
            handshake = Address(*self._links.handshake_address(replica.index))
            self.nodes.start(replica, handshake, self.model_path)
        self._before = Served(started_utc=attempts.utc_now())

    def connect(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        progress: Progress,
    ) -> None:
        """Encode the requests, and connect to the engines, which read the model from then on. Warm
        engines that fail are ended, and the run starts its own. ``answers`` are those of replay
        engines; see :func:`sut.serving.wire.encode`. Raises RunError."""
        progress.step("encoding the requests while the engines start")
        encoded = requests.load(self.plan, prompts, self.model_path, answers)
        store = _store(encoded, prompts)
        if self.warm:
            assert self.nodes.kept is not None
            try:
                self._connect_warm(self.nodes.kept, store, encoded, progress)
            except RunError as error:
                if error.code in ENDED_FROM_OUTSIDE:
                    raise
                self._drop_warm(self.nodes.kept, str(error))
                self.start(progress)
        if not self.warm:
            assert self._links is not None, "start() comes first"
            self._replicas = self._replicas_at(self._links, store, encoded)

    def load(self, progress: Progress) -> None:
        """Wait until all engines are ready; warm ones are. Raises RunError when one exits, has
        another version, is not ready in time, or did not report its configuration."""
        if not self.warm:
            self.replicas.wait_ready(progress, self._started, self.plan.timeouts.ready_s)
        self._reports = self.nodes.engine_reports()
        self.reports = engine_report.merged(self._reports)

    def warm_up(self) -> None:
        """Run some samples on every replica; warm ones have had theirs. Raises RunError."""
        if not self.warm:
            self.replicas.warm_up(NUM_WARMUP_SAMPLES, self.plan.timeouts.warmup_s)

    def _connect_warm(
        self, kept: Kept, store: _core.SampleStore, encoded: Encoded, progress: Progress
    ) -> None:
        """Connect to the engines of an earlier run, and let each replica answer a sample."""
        progress.step(f"connecting to warm engines {kept.keeper}")
        links = self._bind()
        for index, response in enumerate(self._before.ready):
            links.adopt(index, response)
        self._replicas = self._replicas_at(links, store, encoded)
        self._replicas.wait_ready(progress, time.monotonic(), RECONNECT_S)
        self._replicas.warm_up(1, PROBE_S)

    def _drop_warm(self, kept: Kept, reason: str) -> None:
        if self._replicas is not None:
            self._replicas.dispatcher.close()
        kept.stop(EXIT_GRACE_S)
        first, *_ = reason.splitlines()
        self._notes += (
            f"own engines, which end with this run (warm engines {kept.keeper} failed: {first})",
        )
        self.nodes.kept, self.warm = None, False

    def _release(self, kept: Kept) -> bool:
        """Leave the engines to the next run; whether they stay."""
        before, replicas = self._before, self.replicas
        samples = before.samples or (0,) * len(self.plan.replicas)
        served = Served(
            started_utc=before.started_utc,
            runs=before.runs + 1,
            samples=tuple(a + b for a, b in zip(samples, replicas.num_sent, strict=True)),
            ready=replicas.ready_responses,
            reports=tuple(self._reports[index, 0] for index in range(len(samples))),
        )
        # Without them the sockets are closed, and the next run can bind their ports.
        self._links = self._replicas = None
        del replicas
        return kept.release(served)

    def _bind(self) -> _core.ReplicaLinks:
        engines = self.nodes.keys.engines
        return sockets.bind(self.nodes, engines, self.nodes.kept.ports if self.nodes.kept else ())

    def _replicas_at(
        self, links: _core.ReplicaLinks, store: _core.SampleStore, encoded: Encoded
    ) -> Replicas:
        first_use = (1 + sum(self._before.samples)) % 2**32
        return Replicas(
            self.nodes, links, store, encoded.layout, self.model_path, first_use=first_use
        )


def _store(encoded: Encoded, prompts: Sequence[Sequence[int]]) -> _core.SampleStore:
    store = _core.SampleStore()
    for (request, id_offset), prompt in zip(encoded.requests, prompts, strict=True):
        store.add(request, id_offset, len(prompt))
    return store
