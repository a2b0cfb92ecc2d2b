"""The dispatcher's sockets for the engines of a run: :func:`bind`."""

from __future__ import annotations

from collections.abc import Sequence

from sut import _core
from sut.errors import RunError
from sut.serving import wire
from sut.serving.keys import EngineKeys
from sut.serving.nodes import Nodes


def bind(
    nodes: Nodes, engines: Sequence[EngineKeys], ports: Sequence[tuple[int, int, int]] = ()
) -> _core.ReplicaLinks:
    """Sockets for engines with these keys; ``ports`` are those of each, by default free ones.
    Raises RunError."""
    try:
        return _core.ReplicaLinks(
            host=nodes[0].host,
            secret_key=nodes.keys.secret,
            engine_keys=[engine.public for engine in engines],
            max_output_bytes=wire.max_output_bytes(nodes.plan),
            ports=ports,
        )
    except _core.LimitError as error:
        raise RunError(
            str(error),
            hint="run fewer replicas, or have an administrator raise the hard limit, which "
            "ulimit -Hn prints: for Slurm, LimitNOFILE in slurmd's unit",
            code="descriptors",
        ) from None
    except RuntimeError as error:
        raise RunError(
            str(error),
            hint="set the site's host to an address of this machine: --set site.host=ADDRESS",
            code="bind",
        ) from None
