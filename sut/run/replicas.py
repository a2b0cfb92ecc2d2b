"""The replicas of a run, connected: samples go to them through the dispatcher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sut import _core
from sut.errors import NODE_LOST, RunError
from sut.plan.plan import OnReplicaLoss
from sut.results.losses import ReplicaLoss
from sut.results.progress import Progress
from sut.run.credit import credit
from sut.run.failures import exit_text, explained, in_logs
from sut.run.restarts import Restarts
from sut.serving import wire
from sut.serving.nodes import Nodes
from sut.serving.process import PartId
from sut.serving.wire import Layout
from sut.units import quantity

NUM_WARMUP_SAMPLES = 16  # a replica; the first request after a start can take seconds
POLL_S = 0.25
GENERATE_POLL_S = 0.05
ANY = -1  # the dispatcher chooses the replica


class Replicas:
    """Every wait here has a deadline, and ends at once when an engine exits or a node is lost."""

    def __init__(
        self,
        nodes: Nodes,
        links: _core.ReplicaLinks,
        store: _core.SampleStore,
        layout: Layout,
        model_path: Path | None = None,
        *,
        first_use: int = 1,
    ) -> None:
        """``first_use`` is above all samples that the engines have had. ``model_path`` is for those
        that are started again."""
        self.nodes = nodes
        self.plan = plan = nodes.plan
        self._num_samples = len(store)
        self._continues = False  # after the loss of a replica
        self._restarts: Restarts | None = None  # where lost ones return

        def connect(to: _core.ReplicaLinks, use: int) -> _core.Dispatcher:
            return _core.Dispatcher(
                to,
                store,
                _core.WireLayout(**layout),
                max_output_tokens=plan.generation.max_tokens,
                sample_deadline_s=plan.timeouts.sample_s,
                stall_deadline_s=plan.timeouts.stall_s,
                first_use=use,
            )

        self.dispatcher = connect(links, first_use)
        if plan.on_replica_loss is OnReplicaLoss.RESTART:
            warm_up_use = _core.Dispatcher.WARM_UP_FIRST_USE
            self._restarts = Restarts(
                nodes,
                self.dispatcher,
                lambda to: connect(to, warm_up_use),
                range(min(NUM_WARMUP_SAMPLES, self._num_samples)),
                model_path,
            )

    def close(self) -> None:
        """No engine is used after it. Idempotent."""
        if self._restarts is not None:
            self._restarts.close()
        self.dispatcher.close()

    @property
    def is_idle(self) -> bool:
        """Whether every engine is there and has completed all that it was sent."""
        stats = self.dispatcher.live_stats()
        is_whole = self.dispatcher.failure is None and not self.dispatcher.losses()
        return is_whole and stats.issued == stats.completed + stats.withdrawn

    @property
    def ready_responses(self) -> tuple[bytes, ...]:
        """The READY messages of the replicas that are ready."""
        found = (self.dispatcher.ready_response(index) for index in self._indices)
        return tuple(response for response in found if response is not None)

    @property
    def num_refused(self) -> int:
        """The connections of programs that are not this run's engines."""
        return sum(map(self.dispatcher.num_refused, self._indices))

    @property
    def num_sent(self) -> tuple[int, ...]:
        """The number of samples that each replica was sent."""
        return tuple(self.dispatcher.num_sent(index) for index in self._indices)

    @property
    def _indices(self) -> range:
        return range(len(self.plan.replicas))

    def wait_ready(self, progress: Progress, started: float, within_s: float) -> None:
        """Wait until all engines are ready, and limit what each gets to what its scheduler can use.
        ``started`` is of :func:`time.monotonic`. Raises RunError when an engine exits, has another
        version, or is not ready in time."""
        while not self.dispatcher.wait_ready(POLL_S):
            self.check()
            waiting = [i for i in self._indices if self.dispatcher.ready_response(i) is None]
            if not waiting:  # the last became ready meanwhile
                continue
            progress.step(f"loading: waiting for replica {', '.join(map(str, waiting))}")
            if time.monotonic() > started + within_s:
                raise in_logs(self.plan.replicas[waiting[0]], self.nodes.run_dir).error(
                    f"replica {waiting[0]} was not ready after {within_s:g} s"
                    f"{self._refusals(waiting[0])}",
                    hint="if it only needs more time: --set site.timeouts.ready_s=SECONDS",
                    code="not_ready",
                    replica=waiting[0],
                )
        for index, response in zip(self._indices, self.ready_responses, strict=True):
            ready = wire.check_ready(response, self.plan)
            self.dispatcher.set_credit(index, credit(int(ready["max_num_seqs"])))

    def _refusals(self, replica: int) -> str:
        count = self.dispatcher.num_refused(replica)
        return f", and {quantity(count, 'connections')} without its key were refused" * (count > 0)

    def begin_measuring(self, progress: Progress) -> None:
        """Act on the plan's ``on_replica_loss`` from here on. Samples of the warm-up are for one
        replica each: until then every loss is a failure. Waits for restarts under way, so that a
        loss costs one test only. Raises RunError."""
        self._continues = self.plan.on_replica_loss is not OnReplicaLoss.FAIL
        self.dispatcher.continue_after_loss(self._continues)
        self.dispatcher.await_rejoin(self._restarts is not None)
        self.check()
        while self._restarts is not None and self._restarts.is_busy:
            progress.step("waiting for a lost replica to return")
            time.sleep(POLL_S)
            self.check()

    def losses(self) -> tuple[ReplicaLoss, ...]:
        """The replicas that were lost while the others continued, except those that have returned
        before the last ``reset_stats()`` of the dispatcher. Times count from it."""
        exits, with_nodes = self.nodes.exits(), self.nodes.lost()
        return tuple(
            self._loss(place, loss, exits, with_nodes)
            for place, loss in enumerate(self.dispatcher.losses())
            if loss.rejoined_ns is None or loss.rejoined_ns > 0
        )

    def _loss(
        self,
        place: int,
        loss: _core.ReplicaLoss,
        exits: dict[PartId, int],
        with_nodes: dict[int, str],
    ) -> ReplicaLoss:
        """The loss, with the cause behind what the dispatcher noticed."""
        replica = self.plan.replicas[loss.why.replica]
        code, message = loss.why.code, loss.why.message
        own = {part: status for part, status in exits.items() if part[0] == replica.index}
        returned = self._restarts.returns.get(place) if self._restarts else None
        if returned is not None:
            code, message = returned.code, returned.message
        elif replica.index in with_nodes:
            code, message = NODE_LOST, with_nodes[replica.index]
        elif own:
            part = min(own, key=own.__getitem__)
            code, message = "engine_died", exit_text(part, own[part])
        rejoined_ns = loss.rejoined_ns
        return ReplicaLoss(
            replica=replica.index,
            nodes=tuple(self.nodes[part.node].name for part in replica.parts),
            code=code,
            message=message,
            at_s=round(loss.lost_ns / 1e9, 3),
            samples_restarted=loss.samples_restarted,
            tokens_lost=loss.tokens_lost,
            returned_s=None if rejoined_ns is None else round(rejoined_ns / 1e9, 3),
            starts=returned.starts if returned else 0,
            start_failure=returned.failure if returned and returned.is_over else "",
        )

    def limit_in_flight(self, per_replica: int) -> None:
        for index in self._indices:
            self.dispatcher.set_credit(index, per_replica)

    def warm_up(self, num_samples: int, timeout_s: float) -> None:
        """Run the first samples on every replica, outside LoadGen and untimed. An engine may
        compile in its first steps, so ``timeout_s`` is the only limit. Raises RunError."""
        samples = range(min(num_samples, self._num_samples))
        self.dispatcher.watch_deadlines(False)
        try:
            self.generate(samples, timeout_s, on=self._indices)
        except RunError as error:
            if error.code != "generate_timeout" or error.replica is None:
                raise
            raise in_logs(self.plan.replicas[error.replica], self.nodes.run_dir).error(
                f"replica {error.replica} did not answer its first samples within "
                f"{quantity(timeout_s, 's')}",
                hint="if it only needs more time: --set site.timeouts.warmup_s=SECONDS",
                code="warm_up",
                replica=error.replica,
                node=error.node,
            ) from None
        self.dispatcher.watch_deadlines(True)

    def generate(
        self, samples: Sequence[int], timeout_s: float, on: Sequence[int] = (ANY,)
    ) -> None:
        """Run all samples on each of the replicas ``on``, outside LoadGen, and wait for their
        answers. Raises RunError."""
        with ThreadPoolExecutor(len(on)) as pool:
            generate = self.dispatcher.generate
            runs = [pool.submit(generate, samples, index, timeout_s) for index in on]
            try:
                while not all(run.done() for run in runs):
                    time.sleep(GENERATE_POLL_S)
                    self._watch()
            except BaseException as error:
                # Without this the pool waits for the samples.
                self.dispatcher.fail("interrupted", str(error))
                raise
        self.check()
        for run in runs:
            run.result()

    def check(self) -> None:
        """Take a step of each restart. Raise RunError if the dispatcher, an engine or a node has
        failed."""
        self._watch()
        if self._restarts is not None and self._continues:
            self._restarts.poll()
        failure = self.dispatcher.failure
        if failure is not None:
            raise explained(failure, self.nodes, but_lost=self._continues)

    def _watch(self) -> None:
        """Report lost engines to the dispatcher. Raises RunError for a lost node, unless the run
        continues without its replicas."""
        self.nodes.check(but_lost=self._continues)
        for replica, why in self.nodes.lost().items():
            self.dispatcher.lose(replica, NODE_LOST, why)
        for part, status in self.nodes.exits().items():
            self.dispatcher.lose(part[0], "engine_died", exit_text(part, status))
