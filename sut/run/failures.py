"""Why an engine failed: its exit status and what its log shows."""

from __future__ import annotations

import signal
import time

from sut import _core
from sut.errors import RunError
from sut.plan.plan import Replica
from sut.results import diagnosis
from sut.results.diagnosis import Diagnosis
from sut.rundir import RunDir
from sut.serving.nodes import Nodes
from sut.serving.process import PartId

EXIT_GRACE_S = 1.0  # from a lost connection to the exit code that explains it
SIGNAL_GRACE_S = 0.3
KILLED = "the kernel kills what runs out of memory: dmesg -T | grep -i 'killed process' on the node"


def explained(failure: _core.Failure, nodes: Nodes, *, but_lost: bool = False) -> RunError:
    """The dispatcher's failure, with the engine's exit status and what its log shows. Raises
    RunError instead when a node is lost; with ``but_lost`` only for a node of the replica."""
    if failure.replica < 0:
        return RunError(failure.message, code=failure.code)
    replica = nodes.plan.replicas[failure.replica]
    deadline = time.monotonic() + EXIT_GRACE_S
    while (exited := _exited(replica, nodes, but_lost)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    part, code, message, hint = (replica.index, 0), failure.code, failure.message, ""
    if exited is not None:
        # A signal to the whole step ends engines too. Let it arrive here first.
        time.sleep(SIGNAL_GRACE_S)
        part, status = exited
        code, message = "engine_died", exit_text(part, status)
        hint = KILLED if status == -signal.SIGKILL else ""
    return in_logs(replica, nodes.run_dir, part[1]).error(
        message,
        hint=hint,
        code=code,
        replica=replica.index,
        node=nodes[replica.parts[part[1]].node].name,
    )


def _exited(replica: Replica, nodes: Nodes, but_lost: bool) -> tuple[PartId, int] | None:
    """The part of a replica that exited, and its exit status. Of several it is the one that was
    killed: the others exit because of it. Raises RunError for a lost node."""
    for part in replica.parts:
        nodes[part.node].refresh()
    nodes.check(but_lost=but_lost)
    exits = [each for each in nodes.exits().items() if each[0][0] == replica.index]
    return min(exits, key=lambda each: each[1], default=None)


def in_logs(replica: Replica, run_dir: RunDir, first: int = 0) -> Diagnosis:
    """What the logs of a replica's parts show. ``first`` is the part whose log counts most: the
    cause can be in the log of another one."""
    parts = sorted(range(len(replica.parts)), key=lambda part: part != first)
    return diagnosis.of(*(run_dir.replica_log(replica.index, part) for part in parts))


def exit_text(part: PartId, status: int) -> str:
    """That an engine's process exited, for people."""
    name = f"replica {part[0]}" + (f", part {part[1]}," if part[1] > 0 else "")
    ended = f"was killed by signal {-status}" if status < 0 else f"exited with code {status}"
    return f"{name} {ended}"
