"""All nodes of a run, as its head uses them: they join, are watched, and end together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sut.cluster.allocation import Allocation
from sut.errors import CANCELLED, NODE_LOST, RunError
from sut.machine import network
from sut.plan.benchmark import EngineKind
from sut.plan.hostlist import compact
from sut.plan.plan import OnReplicaLoss, Part, Plan, Replica
from sut.results import diagnosis
from sut.results.progress import Progress
from sut.results.record import Failure
from sut.rundir import RunDir
from sut.serving import keys, rendezvous
from sut.serving.follower import GRACE_S
from sut.serving.kept import Kept
from sut.serving.keys import RunKeys
from sut.serving.local import LocalNode
from sut.serving.process import Address, Launch, PartId
from sut.serving.remote import RemoteNode

POLL_S = 0.25
MAX_RESTARTS = 2  # of a replica's engine in a run; each has keys of its own
FAILED_GRACE_S = 1.0  # after a failure, when the engines have nothing left to save
END_S = 5.0  # from the engines' end to the node's


class Nodes:
    """Every node of a run, by its index in Plan.nodes; the first is this one.

    A context that stops every engine on every node at its end.
    """

    def __init__(self, plan: Plan, run_dir: RunDir, allocation: Allocation) -> None:
        """Raises RunError where this node lacks the plan's network interface."""
        several = len(plan.nodes) > 1
        host = network.address_of(plan.interface) if several and plan.interface else plan.host
        self.names = allocation.nodes
        self.plan = plan
        self.run_dir = run_dir
        self._rendezvous = run_dir.rendezvous(allocation.key)
        self._failures = {n: run_dir.node_failure(allocation.key, n) for n in self.names[1:]}
        restarts = MAX_RESTARTS if plan.on_replica_loss is OnReplicaLoss.RESTART else 0
        self._keys = keys.make(len(plan.replicas), restarts)
        self._local = LocalNode(plan, run_dir, 0, self.names[0], host, self._keys.of_starts)
        self._remotes: dict[int, RemoteNode] = {}

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        lost = self._lost_before(error)
        self._end(GRACE_S if error is None else FAILED_GRACE_S)
        if lost is not None:
            raise lost from error

    def _lost_before(self, error: BaseException | None) -> RunError | None:
        """The node behind a cancelled run: srun signals all tasks when one fails."""
        if isinstance(error, RunError) and error.code == CANCELLED:
            if failed := self._failed_to_start():
                return failed
            for remote in self.remotes:
                try:
                    remote.refresh()
                except RunError as lost:
                    return lost
        return None

    def __getitem__(self, index: int) -> LocalNode | RemoteNode:
        return self._remotes[index] if index > 0 else self._local

    def __iter__(self) -> Iterator[LocalNode | RemoteNode]:
        return (self[index] for index in range(len(self._remotes) + 1))

    @property
    def kept(self) -> Kept | None:
        """The owner of the engines of this node in place of this process, or None."""
        return self._local.kept

    @kept.setter
    def kept(self, kept: Kept | None) -> None:
        self._local.kept = kept

    @property
    def keys(self) -> RunKeys:
        """The keys of the dispatcher and the engines."""
        return self.kept.keys if self.kept is not None else self._keys

    @property
    def remotes(self) -> list[RemoteNode]:
        return [self._remotes[index] for index in sorted(self._remotes)]

    def start(
        self, replica: Replica, handshake: Address, model_path: Path | None, restart: int = 0
    ) -> None:
        """Start a replica's engine: one process on each of its nodes. ``restart`` is how often it
        was started before. Call from the main thread. Raises RunError."""
        rendezvous = None
        parts = self._parts(replica)
        if len(parts) > 1:
            first = self[parts[0].node]
            rendezvous = Address(first.host, first.free_port())
        for index, part in enumerate(parts):
            node = self[part.node]
            launch = Launch(
                replica=replica.index,
                part=index,
                handshake=handshake,
                rendezvous=rendezvous,
                host=node.host,
                kept=self.kept is not None,
                restart=restart,
            )
            node.start(launch, None if model_path is None else str(model_path))
            if restart:
                node.refresh()  # exits() has the exit of the earlier process

    def kill(self, replica: Replica) -> None:
        """Kill a replica's engine. Does not wait for its end. Raises RunError."""
        for index, part in enumerate(self._parts(replica)):
            self[part.node].kill((replica.index, index))

    def has_ended(self, replica: Replica) -> bool:
        """Whether every process of a replica's engine has exited."""
        exits = self.exits()
        return all((replica.index, index) in exits for index in range(len(self._parts(replica))))

    def engine_reports(self) -> dict[PartId, bytes]:
        """What the process of each part reported of itself; empty if it did not. Raises
        RunError."""
        return {
            (replica.index, index): self[part.node].engine_report((replica.index, index))
            for replica in self.plan.replicas
            for index, part in enumerate(self._parts(replica))
        }

    def _parts(self, replica: Replica) -> tuple[Part, ...]:
        """Those with a process: the replay engine models all ranks in one."""
        replay = self.plan.engine.kind is EngineKind.REPLAY
        return replica.parts[:1] if replay else replica.parts

    def check(self, *, but_lost: bool = False) -> None:
        """Raise RunError if a node is lost, or received a signal to stop. With ``but_lost`` a lost
        node is no error."""
        for node in self._remotes.values():
            if not but_lost or node.lost is None:
                node.check()

    def lost(self) -> dict[int, str]:
        """Why each replica with a part on a lost node is lost, by its index."""
        whys = {index: node.lost for index, node in self._remotes.items()}
        return {
            replica.index: str(why).partition("\n")[0]
            for replica in self.plan.replicas
            for part in replica.parts
            if (why := whys.get(part.node)) is not None
        }

    def exits(self) -> dict[PartId, int]:
        """The engines of the run that exited, and their status; negative for a signal."""
        return {part: status for node in self for part, status in node.exits().items()}

    def join(self, progress: Progress) -> None:
        """Wait for all other nodes. Raises RunError when one does not join in time."""
        if len(self.plan.nodes) == 1:
            return
        join_s = self.plan.timeouts.join_s
        deadline = time.monotonic() + join_s
        keys = self._keys.of_starts
        with rendezvous.opened(self._rendezvous, self._local.host, keys) as arrivals:
            while missing := self._missing():
                progress.step(f"waiting for node {compact(missing)}")
                if failed := self._failed_to_start():
                    raise failed
                if time.monotonic() > deadline:
                    raise self._absent(missing, join_s)
                self.check()
                if arrived := arrivals.next(POLL_S):
                    connected, hello = arrived
                    if not 0 < hello.node < len(self.names):
                        raise RunError(
                            f"a process joined as node {hello.node} of {len(self.names)}",
                            hint="start sut.run once on each node of the job, by srun",
                            code=NODE_LOST,
                        )
                    remote = RemoteNode(self.names[hello.node], hello.host, connected)
                    self._remotes[hello.node] = remote

    def _absent(self, missing: list[str], join_s: float) -> RunError:
        failed, node = f"node {compact(missing)} did not join within {join_s:g} s", missing[0]
        hint = f"read the job's output on {node} in {self.run_dir.job}"
        logs = self.run_dir.job_logs(self.names.index(node))
        if not logs:
            return RunError(failed, hint=hint, code=NODE_LOST, node=node)
        return diagnosis.of(*logs).error(failed, hint=hint, code=NODE_LOST, node=node)

    def _failed_to_start(self) -> RunError | None:
        """The failure that a node's host left because the node cannot join."""
        for name, path in self._failures.items():
            with contextlib.suppress(FileNotFoundError):
                failure = msgspec.json.decode(path.read_bytes(), type=Failure)
                return RunError(failure.message, code=failure.code, node=name)
        return None

    def _missing(self) -> list[str]:
        return [n for i, n in enumerate(self.names) if i > 0 and i not in self._remotes]

    def _end(self, grace_s: float) -> None:
        """Stop every engine on every node, and wait until they have, or a node is lost."""
        for remote in self.remotes:
            remote.begin_end(grace_s)
        self._local.stop(grace_s)
        deadline = time.monotonic() + grace_s + END_S
        for remote in self.remotes:
            remote.await_end(deadline - time.monotonic())
